//! Installing and opening platforms, from small assets.

#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rekindle_platform::{Assets, Platform, PlatformError, SCRATCH_GIB};
use tempfile::TempDir;

/// Assets, an agent, and a place for platforms.
fn prepared() -> (TempDir, Assets) {
    let dir = tempfile::tempdir().unwrap();
    let assets = Assets { dir: dir.path().join("assets") };
    fs::create_dir_all(assets.modules()).unwrap();
    fs::write(assets.kernel(), "kernel").unwrap();
    fs::write(assets.modules().join("order"), "b.ko\na.ko\n").unwrap();
    fs::write(assets.modules().join("a.ko"), "module a").unwrap();
    fs::write(assets.modules().join("b.ko"), "module b").unwrap();
    fs::write(assets.tools(), "tools").unwrap();
    fs::write(assets.bases(), "bases").unwrap();
    for gib in SCRATCH_GIB {
        File::create(assets.scratch(gib)).unwrap().set_len(gib << 30).unwrap();
    }
    fs::write(dir.path().join("agent"), "agent").unwrap();
    (dir, assets)
}

fn install(dir: &Path, assets: &Assets) -> Result<Platform, PlatformError> {
    Platform::install(assets, &dir.join("agent"), &dir.join("platforms"))
}

#[test]
fn an_installed_platform_is_opened_by_its_id() {
    let (dir, assets) = prepared();
    let platform = install(dir.path(), &assets).unwrap();
    assert_eq!(Platform::open(&dir.path().join("platforms"), platform.id()).unwrap(), platform);
    assert_eq!(fs::read(platform.kernel()).unwrap(), b"kernel");
    let initramfs = fs::read(platform.initramfs()).unwrap();
    for content in ["agent", "module a", "module b", "b.ko\na.ko\n", "TRAILER!!!"] {
        assert!(initramfs.windows(content.len()).any(|window| window == content.as_bytes()), "{content}");
    }
    let scratch = fs::metadata(platform.scratch(9 << 30).unwrap()).unwrap();
    assert_eq!((scratch.len(), scratch.blocks()), (16 << 30, 0));
    assert!(platform.scratch(8 << 30).unwrap().ends_with("scratch-8g.ext4"));
    assert_eq!(platform.scratch((32 << 30) + 1), None);
}

#[test]
fn everybody_may_read_a_platform() {
    let (dir, assets) = prepared();
    let platform = install(dir.path(), &assets).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(platform.kernel().parent().unwrap()), 0o755);
    assert_eq!(mode(&platform.kernel()), 0o644);
    assert_eq!(mode(&platform.initramfs()), 0o644);
}

#[test]
fn the_same_content_is_installed_once() {
    let (dir, assets) = prepared();
    let first = install(dir.path(), &assets).unwrap();
    let before = fs::metadata(first.kernel()).unwrap();
    assert_eq!(install(dir.path(), &assets).unwrap(), first);
    assert_eq!(fs::metadata(first.kernel()).unwrap().ino(), before.ino());
    assert_eq!(fs::read_dir(dir.path().join("platforms")).unwrap().count(), 1);
}

#[test]
fn what_is_left_of_one_is_replaced() {
    let (dir, assets) = prepared();
    let first = install(dir.path(), &assets).unwrap();
    fs::remove_file(first.bases()).unwrap();
    assert_eq!(install(dir.path(), &assets).unwrap(), first);
    assert_eq!(fs::read(first.bases()).unwrap(), b"bases");
}

#[test]
fn other_content_is_another_platform_and_leaves_the_first() {
    let (dir, assets) = prepared();
    let first = install(dir.path(), &assets).unwrap();
    fs::write(assets.kernel(), "newer kernel").unwrap();
    let second = install(dir.path(), &assets).unwrap();
    fs::write(dir.path().join("agent"), "newer agent").unwrap();
    let third = install(dir.path(), &assets).unwrap();
    assert!(first != second && second != third);
    assert_eq!(fs::read(first.kernel()).unwrap(), b"kernel");
}

#[test]
fn missing_assets_are_named() {
    let (dir, assets) = prepared();
    fs::remove_file(assets.bases()).unwrap();
    let error = install(dir.path(), &assets).unwrap_err().to_string();
    assert!(error.contains("bases.erofs") && error.contains("scripts/setup"), "{error}");
    assert!(!dir.path().join("platforms").exists());
}

#[test]
fn a_failed_installation_leaves_nothing() {
    let (dir, assets) = prepared();
    fs::write(assets.modules().join("order"), "../order\n").unwrap();
    assert!(matches!(install(dir.path(), &assets), Err(PlatformError::Module(name)) if name == "../order"));
    assert_eq!(fs::read_dir(dir.path().join("platforms")).unwrap().count(), 0);
}

#[test]
fn a_platform_that_is_not_whole_is_not_opened() {
    let (dir, assets) = prepared();
    let platforms = dir.path().join("platforms");
    let platform = install(dir.path(), &assets).unwrap();
    for id in ["", "..", "0123456789abcdef0123456789abcdef"] {
        assert!(matches!(Platform::open(&platforms, id), Err(PlatformError::Unknown { .. })), "{id}");
    }
    fs::remove_file(platform.initramfs()).unwrap();
    assert!(Platform::open(&platforms, platform.id()).is_err());
}
