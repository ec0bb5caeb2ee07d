//! Images of a layout come into the store.

use std::io::Write;

use oci_spec::image::{Descriptor, ImageManifest};

use super::error::ArchiveError;
use super::index::{self, Found};
use super::layout::{self, Layout};
use super::options::{LoadOptions, LoadedImage};
use crate::digest::{DiffId, Digest};
use crate::error::IoContext;
use crate::image::ImageConfig;
use crate::store::Store;
use crate::transfer::document;
use crate::transfer::document::wrong;
use crate::transfer::logical_times;
use crate::transfer::manifest::keep_manifest;
use crate::transfer::packed::{self, Packed};
use crate::unpack::{ApplyOptions, LayerBlob};

/// An image whose documents were read and checked.
struct Checked {
    found: Found,
    manifest_bytes: Vec<u8>,
    manifest: ImageManifest,
    config_bytes: Vec<u8>,
    config: ImageConfig,
}

/// Loads all images; first everything is checked, then layers, configs, and at last the names.
pub(super) fn load(
    store: &Store,
    layout: &dyn Layout,
    options: &LoadOptions,
) -> Result<Vec<LoadedImage>, ArchiveError> {
    let found = index::find(layout, &options.platform)?;
    let checked = found.into_iter().map(|found| check(layout, found));
    let checked = checked.collect::<Result<Vec<Checked>, ArchiveError>>()?;
    let loaded = checked
        .iter()
        .map(|image| load_image(store, layout, image, options));
    let loaded = loaded.collect::<Result<Vec<LoadedImage>, ArchiveError>>()?;
    store.sync()?;
    for image in &loaded {
        for name in &image.names {
            store.tag(name, &image.image.id)?;
        }
    }
    Ok(loaded)
}

/// Loads one image, by what the index calls it or by its digest; it gets no name.
pub(super) fn load_one(
    store: &Store,
    layout: &dyn Layout,
    reference: Option<&str>,
    options: &LoadOptions,
) -> Result<LoadedImage, ArchiveError> {
    let mut all = index::find(layout, &options.platform)?;
    let known: Vec<String> = all.iter().flat_map(|found| found.tags.clone()).collect();
    if let Some(reference) = reference {
        let is_meant = |found: &Found| {
            let digest = found.manifest.digest().to_string();
            digest == reference || found.tags.iter().any(|tag| tag == reference)
        };
        all.retain(is_meant);
    }
    let (Some(found), true) = (all.pop(), all.is_empty()) else {
        return Err(ArchiveError::Which {
            reference: reference.map(str::to_owned),
            known,
        });
    };
    let mut checked = check(layout, found)?;
    checked.found.names.clear();
    let loaded = load_image(store, layout, &checked, options)?;
    store.sync()?;
    Ok(loaded)
}

fn check(layout: &dyn Layout, found: Found) -> Result<Checked, ArchiveError> {
    let (digest, manifest_bytes) = layout::read(layout, &found.manifest, "manifest")?;
    let what = format!("manifest {digest}");
    let manifest = document::manifest(&manifest_bytes, found.manifest.media_type(), &what)?;
    let (id, config_bytes) = layout::read(layout, manifest.config(), "config")?;
    let config: ImageConfig =
        serde_json::from_slice(&config_bytes).map_err(|e| wrong(&format!("config {id}"), &e.to_string()))?;
    let (layers, diff_ids) = (manifest.layers().len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        let problem = format!("it has {layers} layers, its config {diff_ids}");
        return Err(wrong(&what, &problem).into());
    }
    for layer in manifest.layers() {
        layout::open(layout, layer, "layer")?;
    }
    Ok(Checked {
        found,
        manifest_bytes,
        manifest,
        config_bytes,
        config,
    })
}

fn load_image(
    store: &Store,
    layout: &dyn Layout,
    checked: &Checked,
    options: &LoadOptions,
) -> Result<LoadedImage, ArchiveError> {
    let times = logical_times(&checked.config);
    let diff_ids = &checked.config.rootfs.diff_ids;
    for ((layer, diff_id), time) in checked.manifest.layers().iter().zip(diff_ids).zip(times) {
        load_layer(store, layout, layer, *diff_id, time, options)?;
    }
    let image = store.put_raw_image(&checked.config_bytes)?;
    let manifest = keep_manifest(
        store,
        &image,
        &checked.manifest_bytes,
        checked.found.manifest.media_type(),
    )?;
    Ok(LoadedImage {
        image,
        manifest,
        names: checked.found.names.clone(),
    })
}

/// Unpacks a layer, and keeps its blob as it is.
fn load_layer(
    store: &Store,
    layout: &dyn Layout,
    descriptor: &Descriptor,
    diff_id: DiffId,
    logical_time: Option<i64>,
    options: &LoadOptions,
) -> Result<(), ArchiveError> {
    let (digest, file) = layout::open(layout, descriptor, "layer")?;
    let about = LayerBlob {
        diff_id,
        digest: Some(digest),
        logical_time,
    };
    let apply = ApplyOptions {
        limits: options.limits.clone(),
    };
    let layer = store.apply_blob(file, &about, &apply);
    // The handle keeps the layer until the image does.
    let _layer = layer.map_err(|source| ArchiveError::Layer {
        digest,
        source: Box::new(source),
    })?;
    let packed = Packed {
        digest,
        size: descriptor.size(),
        media_type: descriptor.media_type().to_string(),
    };
    if !packed::has_blob(store, &packed)? {
        copy_blob(store, layout, descriptor, &digest)?;
    }
    Ok(packed::remember(store, &diff_id, &packed)?)
}

fn copy_blob(
    store: &Store,
    layout: &dyn Layout,
    descriptor: &Descriptor,
    digest: &Digest,
) -> Result<(), ArchiveError> {
    let (_, mut file) = layout::open(layout, descriptor, "layer")?;
    let mut writer = store.blob_writer()?;
    let dest = store.layout().blob(digest);
    std::io::copy(&mut file, &mut writer).at("write", &dest)?;
    writer.flush().at("write", &dest)?;
    writer.commit(Some(digest))?;
    Ok(())
}
