use std::collections::BTreeMap;

use ids::{EndpointId, ImageArn, ImageVersion, MicrovmId};
use lifecycle::image::ImageState;
use lifecycle::microvm::{Event, Microvm, Policy};

use super::*;

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db")).unwrap();
    (dir, store)
}

fn arn(name: &str) -> ImageArn {
    format!("arn:aws:lambda:us-east-1:123456789012:microvm-image:{name}").parse().unwrap()
}

fn image(name: &str) -> ImageRecord {
    ImageRecord {
        arn: arn(name),
        state: ImageState::Creating,
        created_at: 1,
        updated_at: 1,
        last_version: ImageVersion::FIRST,
        tags: BTreeMap::new(),
    }
}

fn microvm() -> MicrovmRecord {
    MicrovmRecord {
        id: MicrovmId::random(),
        endpoint: EndpointId::random(),
        account: arn("a").account,
        image: arn("a"),
        version: ImageVersion::FIRST,
        execution_role_arn: None,
        run_hook_payload: Some("{}".into()),
        ingress_network_connectors: vec![],
        egress_network_connectors: vec![],
        life: Microvm::new(Policy { maximum_duration_seconds: 60, idle: None }, 5),
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let (dir, store) = open();
    store.write(|tx| tx.put_image(&image("a"))).await.unwrap();
    drop(store);
    let again = Store::open(&dir.path().join("db")).unwrap();
    assert_eq!(again.read(|tx| tx.image(&arn("a"))).unwrap(), Some(image("a")));
}

#[tokio::test]
async fn a_refused_change_leaves_nothing() {
    let (_dir, store) = open();
    let refused: Result<(), StoreError> = store
        .write(|tx| {
            tx.put_image(&image("a"))?;
            Err(StoreError::Stopped)
        })
        .await;
    assert!(refused.is_err());
    assert_eq!(store.read(|tx| tx.image(&arn("a"))).unwrap(), None);
}

#[tokio::test]
async fn pages_continue_after_the_last_key() {
    let (_dir, store) = open();
    let account = arn("a").account;
    store.write(|tx| ["a", "b", "c"].iter().try_for_each(|name| tx.put_image(&image(name)))).await.unwrap();
    let first = store.read(|tx| tx.images(&account, "", 2)).unwrap();
    let rest = store.read(|tx| tx.images(&account, &first[1].arn.to_string(), 2)).unwrap();
    let names: Vec<_> = first.iter().chain(&rest).map(|image| image.arn.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
}

#[tokio::test]
async fn terminated_microvms_are_kept_but_not_live() {
    let (_dir, store) = open();
    let mut vm = microvm();
    let written = vm.clone();
    store.write(move |tx| tx.put_microvm(&written)).await.unwrap();
    assert_eq!(store.read(|tx| tx.live_microvms_of(&arn("a"))).unwrap(), 1);
    vm.life.apply(&Event::TerminateRequested, 6).unwrap();
    vm.life.apply(&Event::Released, 7).unwrap();
    let written = vm.clone();
    store.write(move |tx| tx.put_microvm(&written)).await.unwrap();
    assert_eq!(store.read(|tx| tx.live_microvms_of(&arn("a"))).unwrap(), 0);
    assert!(store.read(|tx| tx.live_microvms()).unwrap().is_empty());
    assert_eq!(store.read(|tx| tx.microvm_at(vm.endpoint)).unwrap(), Some(vm));
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let (dir, store) = open();
    drop(store);
    let path = dir.path().join("db");
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Schema { found: 99 })));
}
