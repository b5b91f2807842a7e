//! What follows `-o`, as mount(8) passes it.

use clap::ValueEnum;

use super::MountArgs;
use super::cache::parse_size;
use super::status::Failure;
use crate::fuse::{Archives, Audience, Contents, Xattrs};
use crate::mount::Programs;

/// Options that are for mount(8), systemd or other file systems, or that say what is so anyway.
const IGNORED: [&str; 26] = [
    "_netdev",
    "async",
    "atime",
    "auto",
    "default_permissions",
    "defaults",
    "diratime",
    "exec",
    "group",
    "noatime",
    "noauto",
    "nodev",
    "nodiratime",
    "nofail",
    "norelatime",
    "nosuid",
    "nouser",
    "owner",
    "relatime",
    "ro",
    "rw", // mount(8) passes it wherever `ro` is missing
    "silent",
    "strictatime",
    "sync",
    "user",
    "users",
];

/// Options with a value that are for somebody else.
const IGNORED_KEYS: [&str; 4] = ["comment", "uhelper", "user", "helper"];

/// Takes over the options of `list`.
///
/// # Errors
/// Names the first one that is unknown, or whose value is.
pub(super) fn apply(list: &str, args: &mut MountArgs) -> Result<(), Failure> {
    split(list).iter().filter(|option| !option.is_empty()).try_for_each(|option| {
        match option.split_once('=') {
            Some((key, value)) => apply_value(key, value, args),
            None => apply_word(option, args),
        }
        .map_err(|why| Failure::Usage(format!("-o {option}: {why}")))
    })
}

fn apply_word(word: &str, args: &mut MountArgs) -> Result<(), String> {
    match word {
        "allow_other" => args.mount.fuse.audience = Audience::Everybody,
        "allow_root" => args.mount.fuse.audience = Audience::OwnerAndRoot,
        "direct_io" => args.mount.fuse.archives = Archives::Direct,
        "freeze" => args.freeze = true,
        "noexec" => args.mount.programs = Programs::Refused,
        "nopush" => args.mount.fuse.contents = Contents::Asked,
        "noxattrs" => args.mount.fuse.xattrs = Xattrs::Hidden,
        "suid" | "dev" => return Err("not possible: the mount is always nosuid,nodev".into()),
        _ if IGNORED.contains(&word) || is_private(word) => {}
        _ => return Err("unknown option: see `stratafs mount --help`".into()),
    }
    Ok(())
}

fn apply_value(key: &str, value: &str, args: &mut MountArgs) -> Result<(), String> {
    match key {
        "flavour" => args.view.flavour = Some(choice(value)?),
        "verify" => args.view.verify = choice(value)?,
        "changed" => args.view.changed = choice(value)?,
        "symlinks" => args.view.symlinks = choice(value)?,
        "image" => args.view.images.push(value.to_owned()),
        "container" => args.view.containers.push(value.to_owned()),
        "kernel-rootfs" => args.kernel_rootfs.push(value.to_owned()),
        "namespace" => args.view.namespaces.push(value.to_owned()),
        "image-root" => args.view.image_root = Some(value.into()),
        "cache" => args.view.cache.directory = Some(value.into()),
        "cache-size" => args.view.cache.size = Some(parse_size(value)?),
        "watch" => args.watch = choice(value)?,
        "state" => args.state = Some(value.into()),
        "log" => args.log = Some(value.into()),
        "snapshot-limit" => {
            args.snapshot_limit = Some(value.parse().map_err(|_| "not a number".to_owned())?);
        }
        "fsname" => args.mount.source = value.to_owned(),
        "subtype" if value == "stratafs" => {}
        "subtype" => return Err("the subtype is always stratafs".into()),
        _ if IGNORED_KEYS.contains(&key) || is_private(key) => {}
        _ => return Err("unknown option: see `stratafs mount --help`".into()),
    }
    Ok(())
}

/// True for what mount(8) promises never to give a meaning of its own (mount(8), `x-*`).
fn is_private(word: &str) -> bool {
    word.starts_with("x-") || word.starts_with("X-")
}

fn choice<T: ValueEnum>(value: &str) -> Result<T, String> {
    T::from_str(value, false).map_err(|_| {
        let names: Vec<_> = T::value_variants()
            .iter()
            .filter_map(ValueEnum::to_possible_value)
            .map(|value| value.get_name().to_owned())
            .collect();
        format!("not one of {}", names.join(", "))
    })
}

/// Parts between commas; `\,` is a comma within one, and `\\` a backslash (libfuse's rule).
fn split(list: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut characters = list.chars();
    while let Some(character) = characters.next() {
        let literal = match character {
            ',' => {
                parts.push(String::new());
                continue;
            }
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        };
        if let Some(part) = parts.last_mut() {
            part.push(literal);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::super::Watching;
    use super::super::view::{Changed, Flavour, Symlinks, Verify};
    use super::*;

    fn apply_to_default(list: &str) -> Result<MountArgs, Failure> {
        let mut args = MountArgs::default();
        apply(list, &mut args).map(|()| args)
    }

    #[test]
    fn what_mount_passes_is_taken() {
        let list = "rw,nosuid,nodev,noatime,noauto,user,user=jane,_netdev,nofail,,\
                    x-systemd.automount,X-mount.mkdir=0755,default_permissions,subtype=stratafs";
        assert_eq!(apply_to_default(list).unwrap(), MountArgs::default());
        assert_eq!(apply_to_default("").unwrap(), MountArgs::default());
    }

    #[test]
    fn every_option_has_its_key() {
        let args = apply_to_default(
            "allow_other,noexec,noxattrs,direct_io,nopush,flavour=docker-1.10,verify=always,changed=fail,\
             symlinks=rebase,\
             image=a*,image=b\\,c,container=web,namespace=k8s.io,kernel-rootfs=x,image-root=/mnt/disk,\
             state=/srv/kept,freeze,snapshot-limit=7,watch=poll,fsname=my store,cache=/c,cache-size=5M",
        )
        .unwrap();
        assert_eq!(args.mount.fuse.audience, Audience::Everybody);
        assert_eq!(args.mount.programs, Programs::Refused);
        assert_eq!(args.mount.fuse.xattrs, Xattrs::Hidden);
        assert_eq!(args.mount.fuse.archives, Archives::Direct);
        assert_eq!(args.mount.fuse.contents, Contents::Asked);
        assert_eq!(args.view.flavour, Some(Flavour::Docker1_10));
        assert_eq!(args.view.verify, Verify::Always);
        assert_eq!(args.view.changed, Changed::Fail);
        assert_eq!(args.view.symlinks, Symlinks::Rebase);
        assert_eq!(args.view.images, ["a*", "b,c"]);
        assert_eq!(args.view.containers, ["web"]);
        assert_eq!(args.view.namespaces, ["k8s.io"]);
        assert_eq!(args.kernel_rootfs, ["x"]);
        assert_eq!(args.view.image_root, Some("/mnt/disk".into()));
        assert_eq!((args.state, args.freeze), (Some("/srv/kept".into()), true));
        assert_eq!((args.snapshot_limit, args.watch), (Some(7), Watching::Poll));
        assert_eq!(args.mount.source, "my store");
        assert_eq!(args.view.cache.directory.as_deref(), Some("/c".as_ref()));
        assert_eq!(args.view.cache.size, Some(5 << 20));
        let audience = apply_to_default("allow_root").unwrap().mount.fuse.audience;
        assert_eq!(audience, Audience::OwnerAndRoot);
    }

    #[test]
    fn an_unknown_option_is_named() {
        for (list, name) in [
            ("ro,frobnicate", "frobnicate"),
            ("ro,size=5", "size=5"),
            ("flavour=docker-2", "not one of docker-29, "),
            ("suid", "nosuid"),
            ("subtype=other", "stratafs"),
        ] {
            let failure = apply_to_default(list).unwrap_err();
            assert!(matches!(failure, Failure::Usage(_)));
            assert!(failure.to_string().contains(name), "{failure}");
        }
    }
}
