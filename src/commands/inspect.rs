//! `box inspect`: an image's configuration, in Docker's shape where a field means the same.

use box_store::{Image, Reference};
use serde_json::{Value, json};

use crate::app::App;
use crate::cli::InspectArgs;
use crate::error::{EXIT_BOX, EXIT_INPUT, Failure};
use crate::ui;

/// Prints an array with an object for each image.
pub(super) fn run(app: &App, args: &InspectArgs) -> Result<u8, Failure> {
    let images: Result<Vec<Value>, Failure> = args
        .images
        .iter()
        .map(|name| object(app, &app.image(name, EXIT_INPUT)?))
        .collect();
    ui::json(&Value::Array(images?))?;
    Ok(0)
}

fn object(app: &App, image: &Image) -> Result<Value, Failure> {
    let config = serde_json::to_value(&image.config).map_err(|e| Failure::of(EXIT_BOX, &e))?;
    let names = app.names_of(image)?;
    let layers: Vec<String> = image
        .config
        .rootfs
        .diff_ids
        .iter()
        .map(ToString::to_string)
        .collect();
    Ok(json!({
        "Id": image.id.to_string(),
        "RepoTags": names.iter().map(Reference::familiar).collect::<Vec<_>>(),
        "Created": config["created"],
        "Built": image.built,
        "Author": config.get("author").unwrap_or(&json!("")),
        "Architecture": config["architecture"],
        "Os": config["os"],
        "Size": app.image_size(image)?,
        "Config": config.get("config").unwrap_or(&json!({})),
        "RootFS": {"Type": "layers", "Layers": layers},
    }))
}
