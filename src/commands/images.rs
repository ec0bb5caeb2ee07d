//! `box images`: what is in the store.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use box_store::{Image, ImageId, Reference};
use serde_json::json;

use crate::app::{self, App};
use crate::cli::{Format, ImagesArgs};
use crate::error::Failure;
use crate::ui::{self, human, table};

/// Lists every name, and every image without one.
pub(super) fn run(app: &App, args: &ImagesArgs) -> Result<u8, Failure> {
    let mut rows = rows(app)?;
    if let Some(text) = &args.name {
        let wanted = app::reference(text)?;
        // A name that says no tag has `latest`, which is not meant here.
        let says_tag = text
            .rsplit('/')
            .next()
            .is_some_and(|last| last.contains([':', '@']));
        rows.retain(|row| match &row.name {
            Some(name) if says_tag => *name == wanted,
            Some(name) => name.repository() == wanted.repository(),
            None => false,
        });
    }
    if args.quiet {
        let mut ids: Vec<String> = rows
            .iter()
            .map(|row| app.shown_id(&row.image.id, args.no_trunc))
            .collect();
        ids.dedup();
        return ui::result(&ids.iter().map(|id| format!("{id}\n")).collect::<String>()).map(|()| 0);
    }
    match args.format {
        Format::Json => ui::json(&rows.iter().map(|row| row.json()).collect())?,
        Format::Table => {
            let cells: Vec<_> = rows.iter().map(|row| row.cells(app, args.no_trunc)).collect();
            ui::result(&table::render(
                &["NAME", "TAG", "IMAGE ID", "BUILT", "SIZE"],
                &cells,
            ))?;
        }
    }
    Ok(0)
}

struct Row {
    name: Option<Reference>,
    image: Image,
    size: u64,
}

fn rows(app: &App) -> Result<Vec<Row>, Failure> {
    let mut names: BTreeMap<ImageId, Vec<Reference>> = BTreeMap::new();
    for named in app.store.names().map_err(|e| Failure::of(125, &e))? {
        names.entry(named.id).or_default().push(named.reference);
    }
    let mut rows = Vec::new();
    for image in app.store.images().map_err(|e| Failure::of(125, &e))? {
        let size = app.image_size(&image)?;
        let references = names.remove(&image.id).unwrap_or_default();
        if references.is_empty() {
            rows.push(Row {
                name: None,
                image: image.clone(),
                size,
            });
        }
        rows.extend(references.into_iter().map(|name| Row {
            name: Some(name),
            image: image.clone(),
            size,
        }));
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.image.built));
    Ok(rows)
}

impl Row {
    fn names(&self) -> (String, String) {
        let none = || "<none>".to_owned();
        match &self.name {
            None => (none(), none()),
            Some(name) => (name.repository(), name.tag().map_or_else(none, str::to_owned)),
        }
    }

    fn cells(&self, app: &App, whole: bool) -> Vec<String> {
        let (name, tag) = self.names();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs() as i64);
        let built = human::ago(now - self.image.built);
        vec![
            name,
            tag,
            app.shown_id(&self.image.id, whole),
            built,
            human::bytes(self.size),
        ]
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "id": self.image.id.to_string(),
            "name": self.name.as_ref().map(Reference::full),
            "created": self.image.config.created,
            "built": self.image.built,
            "size": self.size,
            "layers": self.image.config.rootfs.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }
}
