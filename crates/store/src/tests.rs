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

pub(crate) fn microvm() -> MicrovmRecord {
    MicrovmRecord {
        id: MicrovmId::random(),
        endpoint: EndpointId::random(),
        account: arn("a").account,
        image: arn("a"),
        version: ImageVersion::FIRST,
        execution_role_arn: None,
        memory_mib: 512,
        run_hook_payload: Some("{}".into()),
        ingress_network_connectors: vec![],
        http_ingress: true,
        egress_network_connectors: vec![],
        egress_binding: None,
        logging: None,
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
        logging: None,
        unusable: None,
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

#[tokio::test]
async fn the_latest_versions_are_found_by_how_they_ended() {
    let (_dir, store) = open();
    let mut versions = Vec::new();
    let mut number = ImageVersion::FIRST;
    for (state, status) in [
        (BuildState::Successful, VersionStatus::Active),
        (BuildState::Failed, VersionStatus::Inactive),
        (BuildState::Successful, VersionStatus::Inactive),
        (BuildState::InProgress, VersionStatus::Inactive),
    ] {
        versions.push(VersionRecord { version: number, state, status, ..version("a") });
        number = number.next();
    }
    store.write(move |tx| versions.iter().try_for_each(|version| tx.put_version(version))).await.unwrap();
    let of = |record: Option<VersionRecord>| record.map(|record| record.version.major());
    let latest = |tx: &Tx<'_>| {
        let image = arn("a");
        Ok::<_, StoreError>((tx.latest_runnable_version(&image)?, tx.latest_failed_version(&image)?))
    };
    let (runnable, failed) = store.read(latest).unwrap();
    assert_eq!((of(runnable), of(failed)), (Some(1), Some(2)));
    let older = store.read(|tx| tx.versions_before(&arn("a"), Some(number), 2)).unwrap();
    assert_eq!(older.iter().map(|record| record.version.major()).collect::<Vec<_>>(), [4, 3]);
    assert_eq!(store.read(|tx| tx.count_versions(&arn("a"))).unwrap(), 4);
}

#[tokio::test]
async fn what_ended_long_ago_is_forgotten_but_nothing_alive() {
    let (_dir, store) = open();
    let (mut gone, alive) = (microvm(), microvm());
    gone.life.apply(&Event::TerminateRequested, 6).unwrap();
    gone.life.apply(&Event::Released, 7).unwrap();
    let written = [gone.clone(), alive.clone()];
    store.write(move |tx| written.iter().try_for_each(|vm| tx.put_microvm(vm))).await.unwrap();
    let left = async |moment| {
        store.write(move |tx| tx.forget_microvms_terminated_before(moment, 10)).await.unwrap();
        store.read(|tx| tx.microvms(&alive.account, "", 10)).unwrap().len()
    };
    assert_eq!(left(7).await, 2);
    assert_eq!(left(8).await, 1);
    assert!(store.read(|tx| tx.microvm(alive.id)).unwrap().is_some());
}

#[tokio::test]
async fn a_deleted_image_takes_the_tokens_that_led_to_it_along() {
    let (_dir, store) = open();
    let account = arn("a").account;
    let token = TokenRecord {
        fingerprint: "f".into(),
        result: arn("a").to_string(),
        version: Some(ImageVersion::FIRST),
        created_at: 1,
    };
    let (owner, record) = (account.clone(), token.clone());
    store
        .write(move |tx| {
            tx.put_image(&image("a"))?;
            tx.put_token(&owner, "CreateMicrovmImage", "t", &record)
        })
        .await
        .unwrap();
    let found = || store.read(|tx| tx.token(&account, "CreateMicrovmImage", "t")).unwrap();
    assert_eq!(found(), Some(token));
    store.write(|tx| tx.delete_image(&arn("a"))).await.unwrap();
    assert_eq!(found(), None);
}

#[tokio::test]
async fn a_listing_shows_of_a_microvm_what_its_record_says() {
    let (_dir, store) = open();
    let mut written = microvm();
    written.life.apply(&Event::Launched, 6).unwrap();
    let record = written.clone();
    store.write(move |tx| tx.put_microvm(&record)).await.unwrap();
    let shown = [MicrovmSummary {
        id: written.id,
        image: written.image.clone(),
        version: written.version,
        state: written.life.state,
        started_at: written.life.started_at,
    }];
    let (account, image) = (written.account.clone(), written.image.clone());
    assert_eq!(store.read(|tx| tx.microvms(&account, "", 5)).unwrap(), shown);
    for version in [None, Some(written.version)] {
        assert_eq!(store.read(|tx| tx.microvms_of(&image, version, "", 5)).unwrap(), shown);
    }
}

/// What an earlier release left, whose rows lack what listings read.
#[tokio::test]
async fn records_of_an_earlier_release_are_listed_and_found_too() {
    const BEFORE_LISTING: usize = 5;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let written = microvm();
    let connection = rusqlite::Connection::open(&path).unwrap();
    MIGRATIONS[..BEFORE_LISTING].iter().for_each(|step| connection.execute_batch(step).unwrap());
    connection.pragma_update(None, "user_version", BEFORE_LISTING).unwrap();
    let row =
        "INSERT INTO microvms (id, endpoint, account, image, version, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let (id, endpoint) = (written.id.to_string(), written.endpoint.to_string());
    let (account, image) = (written.account.to_string(), written.image.to_string());
    let doc = serde_json::to_string(&written).unwrap();
    connection.execute(row, rusqlite::params![id, endpoint, account, image, 1, doc]).unwrap();
    drop(connection);
    let store = Store::open(&path).unwrap();
    let listed = store.read(|tx| tx.microvms(&written.account, "", 5)).unwrap();
    assert_eq!((listed[0].id, listed[0].state), (written.id, written.life.state));
    assert_eq!(listed[0].started_at, written.life.started_at);
    assert_eq!(store.read(|tx| tx.microvm_at(written.endpoint)).unwrap(), Some(written));
}

/// The statements of every launch and deletion, whatever indices there are beside the small one of the living.
#[tokio::test]
async fn the_living_are_counted_without_reading_their_records() {
    let (dir, _store) = open();
    let connection = rusqlite::Connection::open(dir.path().join("db")).unwrap();
    for (what, index, filter) in [
        ("sum(memory_mib)", "microvms_live", "account = 'x'"),
        ("count(*)", "microvms_live_by_version", "image = 'x'"),
        ("count(*)", "microvms_live_by_version", "image = 'x' AND version = 1"),
    ] {
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT {what} FROM microvms INDEXED BY {index} \
             WHERE {filter} AND terminated_at IS NULL"
        );
        let plan: String = connection.query_row(&sql, [], |row| row.get(3)).unwrap();
        assert!(plan.contains("COVERING INDEX"), "{what} {filter}: {plan}");
    }
}

/// The listing's statement, as SQLite would run it.
#[tokio::test]
async fn pages_of_microvms_are_found_in_an_index_however_deep() {
    let (dir, _store) = open();
    let connection = rusqlite::Connection::open(dir.path().join("db")).unwrap();
    for filter in ["account = 'x'", "image = 'x'", "image = 'x' AND version = 1"] {
        let sql = format!(
            "EXPLAIN QUERY PLAN SELECT id, image, version, state, started_at FROM microvms \
             WHERE {filter} AND id > 'y' ORDER BY id LIMIT 5"
        );
        let plan: String = connection.query_row(&sql, [], |row| row.get(3)).unwrap();
        assert!(plan.starts_with("SEARCH") && plan.contains("id>?"), "{filter}: {plan}");
        assert!(plan.contains("COVERING INDEX"), "{filter}: {plan}");
    }
}

fn build(version: &VersionRecord) -> BuildRecord {
    BuildRecord {
        id: BuildId::random(),
        image: version.image.clone(),
        version: version.version,
        state: version.state,
        state_reason: None,
        created_at: 1,
        snapshot: None,
    }
}

#[tokio::test]
async fn a_deleted_version_leaves_the_others_and_its_number_unused() {
    let (_dir, store) = open();
    let first =
        VersionRecord { state: BuildState::Successful, status: VersionStatus::Active, ..version("a") };
    let second = VersionRecord { version: first.version.next(), ..first.clone() };
    let third = VersionRecord {
        version: second.version.next(),
        state: BuildState::Failed,
        status: VersionStatus::Inactive,
        ..first.clone()
    };
    let image = ImageRecord { state: ImageState::UpdateFailed, last_version: third.version, ..image("a") };
    let builds: Vec<_> = [&first, &second, &third].map(build).into();
    let mut running = microvm();
    let deleted = store
        .write::<_, StoreError>(move |tx| {
            tx.put_image(&image)?;
            for (version, build) in [&first, &second, &third].into_iter().zip(&builds) {
                tx.put_version(version)?;
                tx.put_build(build)?;
            }
            tx.put_microvm(&running)?;
            let in_use = versions::begin_delete(tx, image.clone(), first.clone(), 9);
            assert!(matches!(
                in_use,
                Err(versions::DeleteError::Refused(lifecycle::image::ImageRefused::VersionHasMicrovms))
            ));
            running.life.apply(&Event::TerminateRequested, 6).unwrap();
            running.life.apply(&Event::Released, 7).unwrap();
            tx.put_microvm(&running)?;

            for deleted in [&second, &third] {
                let image = tx.image(&arn("a"))?.unwrap();
                assert!(versions::begin_delete(tx, image, deleted.clone(), 9).unwrap());
                let (image, leaving) = (tx.image(&arn("a"))?.unwrap(), tx.deleting_versions()?);
                assert_eq!((image.state, leaving.len()), (ImageState::Updating, 1));
                assert!(!versions::begin_delete(tx, image, leaving[0].clone(), 10).unwrap());
                assert_eq!(tx.latest_runnable_version(&arn("a"))?.unwrap().version, first.version);
                versions::finish_delete(tx, &arn("a"), deleted.version, 11)?;
                // A second time, as after a crash.
                versions::finish_delete(tx, &arn("a"), deleted.version, 12)?;
                assert!(tx.builds(&arn("a"), deleted.version)?.is_empty());
            }
            assert_eq!(tx.latest_failed_version(&arn("a"))?, None);
            assert_eq!(tx.builds(&arn("a"), first.version)?.len(), 1);
            let image = tx.image(&arn("a"))?.unwrap();
            assert_eq!((image.updated_at, image.last_version), (11, third.version));
            let only = versions::begin_delete(tx, image.clone(), first.clone(), 13);
            assert!(matches!(
                only,
                Err(versions::DeleteError::Refused(lifecycle::image::ImageRefused::OnlyVersion))
            ));
            assert!(tx.deleting_versions()?.is_empty());
            Ok(image)
        })
        .await
        .unwrap();
    assert_eq!(deleted.state, ImageState::Updated);
}
