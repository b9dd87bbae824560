//! Layers become one, which still hides what it is to hide of those that it will lie on: the marks of overlayfs are kept
//! (a character device 0/0 in place of what is gone, an attribute of directories that hide all below).

use std::ffi::{CStr, CString};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Gid, Timespec, Timestamps, Uid, XattrFlags, chownat, lgetxattr, llistxattr, lsetxattr,
    utimensat,
};

use super::remove;

const OPAQUE: &CStr = c"trusted.overlay.opaque";

/// A directory of a layer, on its way.
struct Directory {
    from: PathBuf,
    to: PathBuf,
    /// The directories that it is to lie on.
    below: Vec<PathBuf>,
    /// Whether nothing of what is further below is to be seen.
    hides: bool,
}

/// Puts `layer` over what `into` has, which is on the same file system: files are linked, not copied. All of it is to lie on
/// the directories `below`.
pub(super) fn merge(layer: &Path, into: &Path, below: &[PathBuf]) -> io::Result<()> {
    let root =
        Directory { from: layer.to_owned(), to: into.to_owned(), below: below.to_owned(), hides: false };
    // Not by recursion: a layer may be deeper than a stack.
    let mut pending = vec![root];
    let mut merged = Vec::new();
    while let Some(directory) = pending.pop() {
        fill(&directory, &mut pending)?;
        merged.push(directory);
    }
    // Last, because what is put into a directory changes its times.
    merged.iter().try_for_each(finish)
}

/// Links the files of a directory, and adds the directories in it to `pending`.
fn fill(directory: &Directory, pending: &mut Vec<Directory>) -> io::Result<()> {
    if !directory.to.exists() {
        fs::create_dir(&directory.to)?;
    }
    for entry in fs::read_dir(&directory.from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), directory.to.join(entry.file_name()));
        let below = directory.below.iter().map(|below| below.join(entry.file_name()));
        let below: Vec<PathBuf> = below.filter(|below| fs::symlink_metadata(below).is_ok()).collect();
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            pending.push(enter(from, to, below)?);
            continue;
        }
        remove(&to)?;
        // In a directory that lies on none a mark would be seen.
        if !is_whiteout(&metadata) || !below.is_empty() {
            fs::hard_link(&from, &to)?;
        }
    }
    Ok(())
}

/// Makes way for the directory `from`.
fn enter(from: PathBuf, to: PathBuf, mut below: Vec<PathBuf>) -> io::Result<Directory> {
    let was = fs::symlink_metadata(&to).ok();
    let merges = was.as_ref().is_some_and(Metadata::is_dir) && !is_opaque(&from);
    if !merges {
        remove(&to)?;
    }
    // What was gone, or no directory, may be one further below.
    let hides = is_opaque(if merges { &to } else { &from }) || !merges && was.is_some();
    below.retain(|below| !hides && fs::symlink_metadata(below).is_ok_and(|below| below.is_dir()));
    Ok(Directory { from, to, below, hides })
}

fn finish(Directory { from, to, hides, .. }: &Directory) -> io::Result<()> {
    copy_attributes(from, to)?;
    if *hides { Ok(lsetxattr(to, OPAQUE, b"y", XattrFlags::empty())?) } else { Ok(()) }
}

fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

fn is_opaque(directory: &Path) -> bool {
    let mut value = [0; 1];
    lgetxattr(directory, OPAQUE, &mut value).is_ok_and(|length| value[..length] == *b"y")
}

fn copy_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(from)?;
    let owner = (Some(Uid::from_raw(metadata.uid())), Some(Gid::from_raw(metadata.gid())));
    chownat(CWD, to, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
    fs::set_permissions(to, fs::Permissions::from_mode(metadata.mode()))?;
    for name in attributes(from)? {
        let mut value = vec![0; lgetxattr(from, &name, &mut [0_u8; 0])?];
        lgetxattr(from, &name, &mut value)?;
        lsetxattr(to, &name, &value, XattrFlags::empty())?;
    }
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(metadata.atime(), metadata.atime_nsec()),
        last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
    };
    Ok(utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn attributes(path: &Path) -> io::Result<Vec<CString>> {
    let mut names = vec![0_u8; llistxattr(path, &mut [0_u8; 0])?];
    let length = llistxattr(path, &mut names)?;
    let names = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    // Between two zeros there is none.
    Ok(names.map(|name| CString::new(name).unwrap_or_default()).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::thread;

    use proptest::prelude::*;
    use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
    use rustix::thread::{UnshareFlags, unshare_unsafe};

    use super::*;

    /// What a step of a Dockerfile may do at a path.
    #[derive(Debug, Clone)]
    enum Change {
        Write(u8),
        Directory(u32),
        Remove,
        Own(u32),
    }

    /// Some of few paths, so that layers meet.
    fn changes() -> impl Strategy<Value = Vec<(String, Change)>> {
        let path = proptest::collection::vec(prop_oneof!["a", "b"], 1..4).prop_map(|names| names.join("/"));
        let change = prop_oneof![
            any::<u8>().prop_map(Change::Write),
            (0o100_u32..0o1000).prop_map(Change::Directory),
            Just(Change::Remove),
            (0_u32..9).prop_map(Change::Own),
        ];
        proptest::collection::vec((path, change), 0..10)
    }

    /// What cannot be done, such as a file below a file, is not.
    fn apply(root: &Path, changes: &[(String, Change)]) {
        for (path, change) in changes {
            let path = root.join(path);
            let _ = match change {
                Change::Write(content) => fs::write(&path, [*content]),
                Change::Directory(mode) => fs::create_dir_all(&path)
                    .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(*mode))),
                Change::Remove => remove(&path),
                Change::Own(uid) => std::os::unix::fs::lchown(&path, Some(*uid), None),
            };
        }
    }

    /// Layers as overlayfs leaves them, each made upon those before it; the lowest first.
    fn layers(dir: &Path, of: &[Vec<(String, Change)>]) -> Vec<PathBuf> {
        let mut made: Vec<PathBuf> = Vec::new();
        for (number, changes) in of.iter().enumerate() {
            let [upper, work] = ["upper", "work"].map(|name| dir.join(format!("{name}-{number}")));
            [&upper, &work].into_iter().for_each(|made| fs::create_dir(made).unwrap());
            if made.is_empty() {
                apply(&upper, changes);
            } else {
                let options =
                    format!("{},upperdir={},workdir={}", lower(&made), upper.display(), work.display());
                in_overlay(dir, options, |root| apply(root, changes));
            }
            made.push(upper);
        }
        made
    }

    fn lower(layers: &[PathBuf]) -> String {
        let highest_first: Vec<String> =
            layers.iter().rev().map(|layer| layer.display().to_string()).collect();
        format!("lowerdir={}", highest_first.join(":"))
    }

    fn in_overlay<T>(dir: &Path, options: String, act: impl FnOnce(&Path) -> T) -> T {
        let at = dir.join("root");
        fs::create_dir_all(&at).unwrap();
        let options = CString::new(options).unwrap();
        mount("overlay", &at, "overlay", MountFlags::empty(), options.as_c_str()).unwrap();
        let done = act(&at);
        unmount(&at, UnmountFlags::empty()).unwrap();
        done
    }

    /// Every path with all that a program sees of it.
    fn seen(dir: &Path, layers: &[PathBuf]) -> BTreeMap<PathBuf, (u32, u32, i64, Vec<u8>)> {
        fn visit(root: &Path, at: &Path, into: &mut BTreeMap<PathBuf, (u32, u32, i64, Vec<u8>)>) {
            for entry in fs::read_dir(at).unwrap() {
                let path = entry.unwrap().path();
                let metadata = fs::symlink_metadata(&path).unwrap();
                let content = if metadata.is_dir() { vec![] } else { fs::read(&path).unwrap() };
                let attributes = (metadata.mode(), metadata.uid(), metadata.mtime_nsec(), content);
                into.insert(path.strip_prefix(root).unwrap().to_owned(), attributes);
                if metadata.is_dir() {
                    visit(root, &path, into);
                }
            }
        }
        let empty = dir.join("empty");
        fs::create_dir_all(&empty).unwrap();
        // The kernel wants two.
        let layers: Vec<PathBuf> = [empty].into_iter().chain(layers.iter().cloned()).collect();
        in_overlay(dir, lower(&layers), |root| {
            let mut found = BTreeMap::new();
            visit(root, root, &mut found);
            found
        })
    }

    /// A file system in memory for this thread alone, whatever the host's can hold.
    fn alone(act: impl FnOnce(&Path) + Send) {
        let dir = tempfile::tempdir().unwrap();
        let worker = thread::scope(|scope| {
            let work = || {
                // SAFETY: mounts alone are unshared, and no other thread is to see this one's.
                unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
                let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
                mount_change("/", private).unwrap();
                mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), None).unwrap();
                act(dir.path());
            };
            scope.spawn(work).join()
        });
        worker.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }

    /// That the layers above the lowest `base`, merged, show what all of them show.
    fn check(of: &[Vec<(String, Change)>], base: usize) {
        alone(|dir| {
            let layers = layers(dir, of);
            let (base, own) = layers.split_at(base.min(layers.len() - 1));
            let before = seen(dir, &layers);
            let merged = dir.join("merged");
            let below: Vec<PathBuf> = base.iter().rev().cloned().collect();
            own.iter().for_each(|layer| merge(layer, &merged, &below).unwrap());
            let after = seen(dir, &[base, &[merged]].concat());
            assert_eq!(before, after);
        });
    }

    #[test]
    fn layers_may_be_deeper_than_the_stack() {
        const STACK: usize = 128 << 10;
        let dir = tempfile::tempdir().unwrap();
        let deep = "d/".repeat(500);
        let layers = ["one", "two"].map(|layer| dir.path().join(layer));
        for layer in &layers {
            fs::create_dir_all(layer.join(&deep)).unwrap();
        }
        let merged = dir.path().join("merged");
        let into = merged.clone();
        let work = move || layers.iter().for_each(|layer| merge(layer, &into, &[]).unwrap());
        thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap();
        assert!(merged.join(deep).is_dir());
    }

    #[test]
    fn no_mark_is_left_in_a_directory_that_hides_all_below() {
        let directory = || ("a".to_owned(), Change::Directory(0o755));
        let file = || ("a/b".to_owned(), Change::Write(1));
        let gone = |path: &str| (path.to_owned(), Change::Remove);
        check(&[vec![directory(), file()], vec![gone("a"), directory(), file()], vec![gone("a/b")]], 1);
    }

    proptest! {
        #[test]
        fn one_layer_shows_what_they_all_showed(
            of in proptest::collection::vec(changes(), 1..5),
            base in 0_usize..3,
        ) {
            check(&of, base);
        }
    }
}
