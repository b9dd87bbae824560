//! Layers that are not what they say, or not for this host.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

use engine::accelerator::Accelerator;
use engine::{Cpu, EngineVersion};
use network::InstanceTag;
use platform::{Assets, SCRATCH_GIB};
use snapshot::publish::Staging;
use tempfile::TempDir;

use super::*;

/// Disks that take no time.
#[derive(Debug)]
struct Small;

impl PrivateDisks for Small {
    fn format(&self) -> LayerFormat {
        LayerFormat::Qcow2
    }

    fn make(&self, _: &[Layer], path: &Path) -> Result<(), DiskError> {
        fs::write(path, "empty").unwrap();
        Ok(())
    }
}

/// A host's directories with a platform in them, made of small files.
pub(crate) struct Bed {
    dir: TempDir,
    pub(crate) dirs: Dirs,
    pub(crate) platform: Platform,
}

pub(crate) fn host() -> Compatibility {
    Compatibility {
        engine: EngineVersion { name: "QEMU".into(), version: [10, 0, 2] },
        machine: "microvm".into(),
        accelerator: Accelerator::Tcg,
        cpu: Cpu {
            baseline: "x86-64-v3".into(),
            model: "qemu64-v1".into(),
            features: vec!["+avx2".into()],
            vendor: None,
            tsc_khz: Some(2_000_000),
        },
    }
}

impl Bed {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(dir.path(), &InstanceTag::of_data_dir(dir.path()));
        let assets = Assets { dir: dir.path().join("assets") };
        fs::create_dir_all(assets.modules()).unwrap();
        let agent = dir.path().join("agent");
        let empty = [assets.modules().join("order"), assets.tools(), assets.bases(), agent.clone()];
        for path in empty.iter().chain([&assets.kernel()]) {
            fs::write(path, "content").unwrap();
        }
        fs::write(assets.modules().join("order"), "").unwrap();
        for gib in SCRATCH_GIB {
            File::create(assets.scratch(gib)).unwrap().set_len(gib << 30).unwrap();
        }
        let platform = Platform::install(&assets, &agent, &dirs.platforms()).unwrap();
        Self { dir, dirs, platform }
    }

    /// Publishes a layer that was made with `made_with`.
    pub(crate) fn layer(&self, name: &str, made_with: Compatibility) -> PathBuf {
        let published = self.dir.path().join(name);
        let staging = Staging::new(&published).unwrap();
        let layout = Layout::new(&self.platform, false, made_with, 2048, 1, 8 << 30);
        ImageLayer::create(staging.path(), &Small, layout, self.platform.clone()).unwrap();
        for file in [CODE, MEMORY, DEVICE] {
            fs::write(staging.path().join(file), format!("the {file}")).unwrap();
        }
        staging.publish().unwrap();
        published
    }

    pub(crate) fn microvm(&self) -> PathBuf {
        let dir = self.dir.path().join("microvm");
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn open(&self, layer: &Path) -> Result<ImageLayer, LayerError> {
        ImageLayer::open(layer, &self.dirs, &host())
    }
}

/// Calls `check` with one bit of each byte of each file of `dir` flipped.
pub(crate) fn with_every_byte_flipped(dir: &Path, mut check: impl FnMut(&str)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 1 << (at % 8);
            fs::write(&path, broken).unwrap();
            check(&format!("byte {at} of {}", path.display()));
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_flipped_bit_of_a_layer_or_its_platform_fails_closed() {
    let bed = Bed::new();
    let layer = bed.layer("layer", host());
    with_every_byte_flipped(&layer, |place| {
        let refused = bed.open(&layer).expect_err(place);
        assert!(refused.told().is_some(), "{place}: {refused}");
    });
    let kernel = bed.platform.kernel();
    fs::write(&kernel, "another").unwrap();
    let told = bed.open(&layer).unwrap_err().told();
    assert!(told.is_some_and(|told| told.contains("not whole")), "another kernel");
    fs::write(&kernel, "content").unwrap();
    bed.open(&layer).unwrap();
}

#[test]
fn a_layer_of_another_kind_of_host_is_refused_with_the_difference() {
    let bed = Bed::new();
    let mut made_with = host();
    made_with.engine.version = [9, 2, 0];
    let refused = bed.open(&bed.layer("older", made_with)).unwrap_err();
    assert_eq!(
        refused.told().unwrap(),
        "The image version's snapshot does not fit this host: it was made with the VMM QEMU 9.2.0, and this host \
         has QEMU 10.0.2. Build the image again."
    );
    let mut made_with = host();
    made_with.cpu.features.push("+avx512f".into());
    let told = bed.open(&bed.layer("larger", made_with)).unwrap_err().told().unwrap();
    assert!(told.contains("+avx512f"), "{told}");
}

#[test]
fn a_layer_of_the_format_before_is_refused_as_such() {
    let bed = Bed::new();
    let published = bed.dir.path().join("layer");
    let staging = Staging::new(&published).unwrap();
    let before = r#"{"version":1,"platform":"0","memory_mib":2048,"vcpus":1,"scratch_bytes":8589934592}"#;
    fs::write(staging.path().join(LAYOUT), before).unwrap();
    staging.publish().unwrap();
    let refused = bed.open(&published).unwrap_err();
    assert!(matches!(refused, LayerError::Version { found: 1, .. }), "{refused}");
    assert!(refused.told().unwrap().contains("another release"));
}

#[test]
fn a_name_given_again_is_verified_again() {
    let bed = Bed::new();
    let layer = bed.layer("layer", host());
    let first = bed.open(&layer).unwrap();
    fs::remove_dir_all(&layer).unwrap();
    let mut made_with = host();
    made_with.engine.version[2] += 1;
    bed.layer("layer", made_with);
    assert_ne!(bed.open(&layer).unwrap().digest(), first.digest());
}
