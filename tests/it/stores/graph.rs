//! The graph of Docker to 1.9, made of a data root on overlay2 that holds the same.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::handmade::{CREATED, digest, hex_of, set_mtime};
use crate::drivers::mark_by_names;

/// What the V1 image of a layer is called.
pub(crate) fn v1_id(chain_id: &str) -> String {
    hex_of(&digest(format!("v1 {chain_id}").as_bytes())).to_owned()
}

/// The description of an image with the ID `id` upon `parent`.
pub(crate) fn description(id: &str, parent: Option<&str>) -> Value {
    let mut description = json!({
        "id": id,
        "created": CREATED,
        "container_config": { "Cmd": ["/bin/sh", "-c", format!("make <{}>", &id[..4])] },
        "docker_version": "1.9.1",
        "config": { "Cmd": ["/bin/sh"], "Env": ["PATH=/bin"] },
        "architecture": "amd64",
        "os": "linux",
        "Size": 7,
    });
    if let Some(parent) = parent {
        description["parent"] = parent.into();
    }
    description
}

/// Turns the data root on overlay2 in `root` into a graph with `driver`: `aufs`, `vfs`, `btrfs` or
/// `overlay`.
pub(crate) fn turn(root: &Path, driver: &str) {
    let turn = Turn { root, driver };
    for directory in ["graph/_tmp", "aufs/diff", "aufs/layers", "aufs/mnt", "vfs/dir"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let metadata = root.join("image/overlay2");
    let layers = metadata.join("layerdb/sha256");
    let mut chains: Vec<String> =
        names(&layers).iter().map(|hex| format!("sha256:{hex}")).collect();
    let text = |chain: &str, name: &str| fs::read_to_string(layers.join(hex_of(chain)).join(name));
    let depth = |chain: &String| {
        let parent = |chain: &String| text(chain, "parent").ok();
        std::iter::successors(Some(chain.clone()), parent).count()
    };
    chains.sort_by_key(depth);
    for chain in &chains {
        let parent = text(chain, "parent").ok().map(|parent| v1_id(&parent));
        let id = v1_id(chain);
        let image = root.join("graph").join(&id);
        fs::create_dir(&image).unwrap();
        fs::write(image.join("json"), description(&id, parent.as_deref()).to_string()).unwrap();
        fs::write(image.join("layersize"), text(chain, "size").unwrap()).unwrap();
        let record = layers.join(hex_of(chain)).join("tar-split.json.gz");
        fs::copy(record, image.join("tar-data.json.gz")).unwrap();
        turn.layer(&text(chain, "cache-id").unwrap(), &id, parent.as_deref());
    }
    let v1_of = |config: &str| {
        let config = fs::read(metadata.join("imagedb/content/sha256").join(hex_of(config)));
        let config: Value = serde_json::from_slice(&config.unwrap()).unwrap();
        let mut chain = String::new();
        for diff_id in config["rootfs"]["diff_ids"].as_array().unwrap() {
            let diff_id = diff_id.as_str().unwrap();
            chain = match chain.as_str() {
                "" => diff_id.to_owned(),
                below => digest(format!("{below} {diff_id}").as_bytes()),
            };
        }
        v1_id(&chain)
    };
    for id in names(&root.join("containers")) {
        let of =
            |name: &str| fs::read_to_string(metadata.join("layerdb/mounts").join(&id).join(name));
        let directory = root.join("containers").join(&id);
        let config = fs::read(directory.join("config.v2.json")).unwrap();
        let mut config: Value = serde_json::from_slice(&config).unwrap();
        let image = v1_of(config["Image"].as_str().unwrap());
        turn.container(&id, &of("init-id").unwrap(), &of("mount-id").unwrap(), &image);
        config["Image"] = image.into();
        config["Driver"] = driver.into();
        fs::write(directory.join("config.json"), config.to_string()).unwrap();
        fs::remove_file(directory.join("config.v2.json")).unwrap();
    }
    let list: Value =
        serde_json::from_slice(&fs::read(metadata.join("repositories.json")).unwrap()).unwrap();
    let mut repositories = json!({});
    for (name, references) in list["Repositories"].as_object().unwrap() {
        for (reference, id) in references.as_object().unwrap() {
            let tag = reference.strip_prefix(&format!("{name}:")).unwrap();
            repositories[name][tag] = v1_of(id.as_str().unwrap()).into();
        }
    }
    let list = json!({ "Repositories": repositories, "ConfirmDefPush": null }).to_string();
    fs::write(root.join(format!("repositories-{driver}")), list).unwrap();
    fs::remove_dir_all(root.join("image")).unwrap();
    fs::remove_dir_all(root.join("overlay2")).unwrap();
}

struct Turn<'a> {
    root: &'a Path,
    driver: &'a str,
}

impl Turn<'_> {
    /// Puts the files of the layer `from` where the driver keeps those of the image `id`.
    fn layer(&self, from: &str, id: &str, parent: Option<&str>) {
        let own = self.root.join("overlay2").join(from).join("diff");
        if self.driver == "aufs" {
            return self.branch(&own, id, parent);
        }
        let full = self.full(id);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        match parent {
            Some(parent) => copy(&self.full(parent), &full),
            None => fs::create_dir(&full).unwrap(),
        }
        apply(&own, &full);
    }

    /// The same of a container, with its init layer.
    fn container(&self, id: &str, init: &str, own: &str, image: &str) {
        let init_id = format!("{id}-init");
        if self.driver != "overlay" {
            self.layer(init, &init_id, Some(image));
            return self.layer(own, id, Some(&init_id));
        }
        let home = self.root.join("overlay");
        let upper = |id: &str| home.join(id).join("upper");
        for (id, from) in [(&*init_id, init), (id, own)] {
            fs::create_dir_all(home.join(id)).unwrap();
            fs::write(home.join(id).join("lower-id"), image).unwrap();
            copy(&self.root.join("overlay2").join(from).join("diff"), &upper(id));
        }
        copy(&upper(&init_id).join("."), &upper(id));
    }

    /// A branch of aufs.
    fn branch(&self, own: &Path, id: &str, parent: Option<&str>) {
        let home = self.root.join("aufs");
        mark_by_names(own);
        fs::rename(own, home.join("diff").join(id)).unwrap();
        let list = |id: &str| fs::read_to_string(home.join("layers").join(id)).unwrap();
        let below = parent.map_or_else(String::new, |it| format!("{it}\n{}", list(it)));
        fs::write(home.join("layers").join(id), below).unwrap();
    }

    /// Where a full copy is.
    fn full(&self, id: &str) -> PathBuf {
        match self.driver {
            "overlay" => self.root.join("overlay").join(id).join("root"),
            "btrfs" => self.root.join("btrfs/subvolumes").join(id),
            _ => self.root.join("vfs/dir").join(id),
        }
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Copies with `cp -a`.
pub(crate) fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

/// Lays the changes of a directory of overlayfs over a full copy.
fn apply(own: &Path, full: &Path) {
    for name in names(own) {
        let (from, to) = (own.join(&name), full.join(&name));
        let data = from.symlink_metadata().unwrap();
        let mut value = [0; 2];
        let is_opaque =
            rustix::fs::lgetxattr(&from, "trusted.overlay.opaque", &mut value[..]).is_ok();
        let is_merged = data.is_dir() && to.is_dir() && !is_opaque;
        if is_merged {
            apply(&from, &to);
            set_mtime(&to, data.mtime(), data.mtime_nsec());
            continue;
        }
        if to.symlink_metadata().is_ok_and(|it| it.is_dir()) {
            fs::remove_dir_all(&to).unwrap();
        } else if to.symlink_metadata().is_ok() {
            fs::remove_file(&to).unwrap();
        }
        if !(data.file_type().is_char_device() && data.rdev() == 0) {
            copy(&from, &to);
            if is_opaque {
                rustix::fs::lremovexattr(&to, "trusted.overlay.opaque").unwrap();
            }
        }
    }
}
