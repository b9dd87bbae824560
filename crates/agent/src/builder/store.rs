//! Images as the tools keep them (containers/storage, with the overlay driver): which layers they are made of, and how they
//! are run. Asking the tools would take a start of theirs for each question, seconds of an emulated processor.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use agent_proto::ImageConfig;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::error::{Error, trying};

/// Where builds write, and the catalogue of base images, which is only read.
pub(super) struct Stores {
    pub(super) own: PathBuf,
    pub(super) catalogue: PathBuf,
}

/// An image.
#[derive(Debug, PartialEq)]
pub(super) struct Image {
    /// How to run it.
    pub(super) config: ImageConfig,
    /// What it adds to the layers below.
    pub(super) layers: Layers,
}

/// Of an image, by where they are; what builds write always lies above the catalogue's.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Layers {
    /// Names of the build's own, the highest first.
    pub(super) own: Vec<String>,
    /// Names of the catalogue's, the highest first.
    pub(super) base: Vec<String>,
}

#[derive(Deserialize)]
struct ImageRecord {
    id: String,
    /// The highest; an image without files has none.
    #[serde(default)]
    layer: String,
}

#[derive(Deserialize)]
struct LayerRecord {
    id: String,
    #[serde(default)]
    parent: String,
}

impl Stores {
    /// The image whose id this is.
    pub(super) fn image(&self, id: &str) -> Result<Image, Error> {
        for store in [&self.own, &self.catalogue] {
            let images: Vec<ImageRecord> = list(&store.join("overlay-images/images.json"))?;
            if let Some(image) = images.into_iter().find(|image| image.id == id) {
                return Ok(Image { config: read_config(store, id)?, layers: self.layers(&image.layer)? });
            }
        }
        Err(Error::new(format!("looking for image {id}"), "there is none"))
    }

    /// Whether there is a container that a build has left.
    pub(super) fn has_containers(&self) -> Result<bool, Error> {
        let containers: Vec<IgnoredAny> = list(&self.own.join("overlay-containers/containers.json"))?;
        Ok(!containers.is_empty())
    }

    /// The files of one of the build's own layers.
    pub(super) fn files(&self, layer: &str) -> PathBuf {
        self.own.join("overlay").join(layer).join("diff")
    }

    /// The files of one of the catalogue's.
    pub(super) fn base_files(&self, layer: &str) -> PathBuf {
        self.catalogue.join("overlay").join(layer).join("diff")
    }

    fn layers(&self, highest: &str) -> Result<Layers, Error> {
        let parents = |store: &Path| -> Result<HashMap<String, String>, Error> {
            let layers: Vec<LayerRecord> = list(&store.join("overlay-layers/layers.json"))?;
            Ok(layers.into_iter().map(|layer| (layer.id, layer.parent)).collect())
        };
        chain(highest, parents(&self.own)?, parents(&self.catalogue)?)
    }
}

/// The layers from `highest` down, by the parents of those of each store.
fn chain(
    highest: &str,
    mut own: HashMap<String, String>,
    mut catalogue: HashMap<String, String>,
) -> Result<Layers, Error> {
    let mut layers = Layers::default();
    let mut next = highest.to_owned();
    while !next.is_empty() {
        let attempt = format!("looking for layer {next}");
        // Each is taken once: a circle would have no end.
        if layers.base.is_empty()
            && let Some(parent) = own.remove(&next)
        {
            layers.own.push(std::mem::replace(&mut next, parent));
        } else if let Some(parent) = catalogue.remove(&next) {
            layers.base.push(std::mem::replace(&mut next, parent));
        } else {
            return Err(Error::new(attempt, "there is none"));
        }
    }
    Ok(layers)
}

/// A list that is not there yet is empty.
fn list<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Error> {
    if path.exists() { read(path) } else { Ok(Vec::new()) }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let read = fs::read(path).and_then(|text| Ok(serde_json::from_slice(&text)?));
    read.map_err(trying(format!("reading {}", path.display())))
}

/// An image is named by the hash of its configuration, which lies beside it under the name of that hash.
fn read_config(store: &Path, id: &str) -> Result<ImageConfig, Error> {
    let file = format!("={}", BASE64_STANDARD.encode(format!("sha256:{id}")));
    let image: Value = read(&store.join("overlay-images").join(id).join(file))?;
    Ok(parse_config(&image["config"]))
}

fn parse_config(config: &Value) -> ImageConfig {
    let text = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
    let list = |name: &str| {
        let words = config[name].as_array().into_iter().flatten();
        words.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    ImageConfig {
        entrypoint: list("Entrypoint"),
        cmd: list("Cmd"),
        env: list("Env"),
        user: text("User"),
        workdir: text("WorkingDir"),
        stop_signal: text("StopSignal"),
        volumes: config["Volumes"].as_object().into_iter().flat_map(|paths| paths.keys().cloned()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parents(of: &[(&str, &str)]) -> HashMap<String, String> {
        of.iter().map(|&(id, parent)| (id.to_owned(), parent.to_owned())).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn own_layers_lie_above_the_catalogues() {
        let own = || parents(&[("d", "c"), ("c", "b"), ("alone", "")]);
        let catalogue = || parents(&[("b", "a"), ("a", ""), ("other", "a")]);
        let found = |highest| chain(highest, own(), catalogue()).unwrap();
        assert_eq!(found("d"), Layers { own: names(&["d", "c"]), base: names(&["b", "a"]) });
        assert_eq!(found("alone"), Layers { own: names(&["alone"]), base: vec![] });
        assert_eq!(found("b"), Layers { own: vec![], base: names(&["b", "a"]) });
        assert_eq!(found(""), Layers::default(), "an image without files");
    }

    #[test]
    fn a_chain_that_is_broken_or_a_circle_is_refused() {
        for own in [parents(&[("d", "gone")]), parents(&[("d", "c"), ("c", "d")])] {
            assert!(chain("d", own, HashMap::new()).is_err());
        }
        // The catalogue is only read, so that it knows nothing of a build's layers.
        assert!(chain("b", parents(&[("d", "")]), parents(&[("b", "d")])).is_err());
    }

    #[test]
    fn an_image_is_found_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let stores = Stores { own: dir.path().join("own"), catalogue: dir.path().join("catalogue") };
        let (id, layer) = ("f2d768c3", "d08758e4");
        let of_image = stores.catalogue.join("overlay-images").join(id);
        fs::create_dir_all(&of_image).unwrap();
        fs::create_dir_all(stores.catalogue.join("overlay-layers")).unwrap();
        fs::write(of_image.join("=c2hhMjU2OmYyZDc2OGMz"), r#"{"config": {"User": "web"}}"#).unwrap();
        let record = serde_json::json!([{"id": id, "layer": layer, "names": ["a"]}]);
        fs::write(stores.catalogue.join("overlay-images/images.json"), record.to_string()).unwrap();
        let record = serde_json::json!([{"id": layer, "diff-size": 1}]);
        fs::write(stores.catalogue.join("overlay-layers/layers.json"), record.to_string()).unwrap();
        let config = ImageConfig { user: "web".into(), ..ImageConfig::default() };
        let layers = Layers { own: vec![], base: names(&[layer]) };
        assert_eq!(stores.image(id).unwrap(), Image { config, layers });
        assert!(stores.image("other").is_err());
    }

    #[test]
    fn containers_that_builds_left_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let stores = Stores { own: dir.path().join("own"), catalogue: dir.path().join("catalogue") };
        assert!(!stores.has_containers().unwrap(), "nothing was built yet");
        let records = stores.own.join("overlay-containers/containers.json");
        fs::create_dir_all(records.parent().unwrap()).unwrap();
        for (text, left) in [("[]", false), (r#"[{"id": "f2d768c3", "layer": "d08758e4"}]"#, true)] {
            fs::write(&records, text).unwrap();
            assert_eq!(stores.has_containers().unwrap(), left, "{text}");
        }
    }

    #[test]
    fn a_configuration_without_fields_is_empty() {
        let config = serde_json::json!({"Cmd": ["a", "b"], "Entrypoint": null, "User": "web"});
        let got = parse_config(&config);
        assert_eq!(
            got,
            ImageConfig { cmd: vec!["a".into(), "b".into()], user: "web".into(), ..Default::default() }
        );
        let volumes = parse_config(&serde_json::json!({"Volumes": {"/b": {}, "/a": {}}})).volumes;
        assert!(volumes.len() == 2 && ["/a", "/b"].iter().all(|path| volumes.contains(&(*path).to_owned())));
    }
}
