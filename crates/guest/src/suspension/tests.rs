//! Saved states that are not what they say, or not for this host or layer.

use super::*;
use crate::layer::tests::{Bed, host, with_every_byte_flipped};

/// A published suspension over the layer `below`, in the place of a MicroVM's.
fn saved(bed: &Bed, below: &Path, made_with: &Compatibility) -> Suspension {
    let suspension = Suspension::of(&bed.microvm());
    let _ = fs::remove_dir_all(suspension.path());
    let staging = Staging::new(&suspension.path()).unwrap();
    suspension.describe(staging.path(), below, made_with, SystemTime::now()).unwrap();
    fs::write(staging.path().join(DEVICE), "the device state").unwrap();
    let memory = layer_name(0);
    fs::write(staging.path().join(&memory), "").unwrap();
    staging.publish_with(&[&memory]).unwrap();
    suspension
}

#[test]
fn a_flipped_bit_of_a_saved_state_fails_closed() {
    let bed = Bed::new();
    let dir = bed.layer("layer", host());
    let layer = ImageLayer::open(&dir, &bed.dirs, &host()).unwrap();
    let suspension = saved(&bed, &dir, &host());
    // The memory layers' own checksums are tested where they are made.
    with_every_byte_flipped(&suspension.path(), |place| {
        let refused = suspension.restore(&layer, &host()).expect_err(place);
        assert!(refused.told().is_some(), "{place}: {refused}");
    });
    suspension.restore(&layer, &host()).unwrap();
}

#[test]
fn a_saved_state_of_another_host_or_layer_is_refused() {
    let bed = Bed::new();
    let [one, other] = ["one", "other"].map(|name| {
        let mut made_with = host();
        made_with.engine.version[2] = name.len() as u32;
        bed.layer(name, made_with)
    });
    let layer = ImageLayer::open(&one, &bed.dirs, &host()).unwrap();
    let mut elsewhere = host();
    elsewhere.machine = "microvm,acpi=off".into();
    let told = saved(&bed, &one, &elsewhere).restore(&layer, &host()).unwrap_err().told().unwrap();
    assert!(told.contains("microvm,acpi=off"), "{told}");
    let told = saved(&bed, &other, &host()).restore(&layer, &host()).unwrap_err().told().unwrap();
    assert_eq!(told, "The MicroVM's saved state does not fit its image version.");
}

#[tokio::test]
async fn what_is_withdrawn_is_gone() {
    let bed = Bed::new();
    let dir = bed.layer("layer", host());
    let suspension = saved(&bed, &dir, &host());
    suspension.withdraw().await.unwrap();
    assert!(!suspension.exists());
    suspension.withdraw().await.unwrap();
}
