use std::collections::BTreeMap;

use ids::{BuildId, EndpointId, ImageArn, ImageVersion, MicrovmId};
use lifecycle::image::{BuildState, ImageState, VersionStatus};
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

fn version(name: &str) -> VersionRecord {
    VersionRecord {
        image: arn(name),
        version: ImageVersion::FIRST,
        state: BuildState::Pending,
        status: VersionStatus::Inactive,
        created_at: 1,
        updated_at: 1,
        description: None,
        base_image_arn: "base".into(),
        base_image_version: "1.0".into(),
        build_role_arn: "role".into(),
        code_artifact: CodeArtifact { uri: "s3://a/b".into() },
        hooks: HookSettings::default(),
        environment_variables: BTreeMap::new(),
        minimum_memory_mib: 2048,
        all_capabilities: false,
        egress_network_connectors: vec![],
    }
}

async fn pending_build(store: &Store) -> BuildId {
    let build = BuildRecord {
        id: BuildId::random(),
        image: arn("a"),
        version: ImageVersion::FIRST,
        state: BuildState::Pending,
        state_reason: None,
        created_at: 1,
        snapshot: None,
    };
    let id = build.id;
    store
        .write(move |tx| {
            tx.put_image(&image("a"))?;
            tx.put_version(&version("a"))?;
            tx.put_build(&build)
        })
        .await
        .unwrap();
    id
}

fn states(store: &Store, id: BuildId) -> (BuildState, BuildState, VersionStatus, ImageState) {
    let look = |tx: &Tx<'_>| {
        let (build, image) = (tx.build(id)?.unwrap(), tx.image(&arn("a"))?.unwrap());
        let version = tx.version(&arn("a"), ImageVersion::FIRST)?.unwrap();
        Ok::<_, StoreError>((build.state, version.state, version.status, image.state))
    };
    store.read(look).unwrap()
}

const SIZES: SnapshotSizes = SnapshotSizes { memory: Some(1), code_install: Some(2), disk: Some(3) };

#[tokio::test]
async fn a_build_that_succeeds_makes_its_version_run() {
    let (_dir, store) = open();
    let id = pending_build(&store).await;
    let begun = store.write(move |tx| builds::begin(tx, id, 2)).await.unwrap().unwrap();
    assert_eq!((begun.0.id, begun.1.image), (id, arn("a")));
    let under_way =
        (BuildState::InProgress, BuildState::InProgress, VersionStatus::Inactive, ImageState::Creating);
    assert_eq!(states(&store, id), under_way);
    store.write(move |tx| builds::finish(tx, id, Ok(SIZES), None, 3)).await.unwrap();
    let done = (BuildState::Successful, BuildState::Successful, VersionStatus::Active, ImageState::Created);
    assert_eq!(states(&store, id), done);

    let late = Err("too late".to_owned());
    store.write(move |tx| builds::finish(tx, id, late, None, 4)).await.unwrap();
    assert_eq!(states(&store, id), done, "an end is final");
    assert!(store.write(move |tx| builds::begin(tx, id, 5)).await.unwrap().is_none());
}

#[tokio::test]
async fn a_build_that_fails_says_why_and_what_it_made() {
    let (_dir, store) = open();
    let id = pending_build(&store).await;
    let made = SnapshotSizes { code_install: Some(7), ..SnapshotSizes::default() };
    let failed = Err("no Dockerfile".to_owned());
    store.write(move |tx| builds::finish(tx, id, failed, Some(made), 3)).await.unwrap();
    let ended = (BuildState::Failed, BuildState::Failed, VersionStatus::Inactive, ImageState::CreateFailed);
    assert_eq!(states(&store, id), ended);
    let build = store.read(|tx| tx.build(id)).unwrap().unwrap();
    assert_eq!((build.state_reason.as_deref(), build.snapshot), (Some("no Dockerfile"), Some(made)));
}
