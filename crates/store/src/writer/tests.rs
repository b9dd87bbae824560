use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};

use ids::{ImageArn, ImageVersion};
use lifecycle::image::ImageState;

use crate::{ImageRecord, Store, StoreError};

fn arn(name: &str) -> ImageArn {
    format!("arn:aws:lambda:us-east-1:123456789012:microvm-image:{name}").parse().unwrap()
}

fn image(name: &str) -> ImageRecord {
    ImageRecord {
        arn: arn(name),
        state: ImageState::Created,
        created_at: 1,
        updated_at: 1,
        last_version: ImageVersion::FIRST,
        tags: BTreeMap::new(),
    }
}

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db")).unwrap();
    (dir, store)
}

fn has(store: &Store, name: &str) -> bool {
    store.read(|tx| tx.image(&arn(name))).unwrap().is_some()
}

/// Keeps the writer busy, so that whatever is asked for meanwhile shares a transaction with it, until told to go on.
async fn hold(store: &Store) -> (Sender<()>, tokio::task::JoinHandle<Result<(), StoreError>>) {
    let ((go, gate), (begun, waits)) = (channel(), channel());
    let writing = store.clone();
    let held = tokio::spawn(async move {
        let change = move |tx: &crate::Tx<'_>| {
            tx.put_image(&image("first"))?;
            begun.send(()).unwrap();
            gate.recv().unwrap();
            Ok(())
        };
        writing.write(change).await
    });
    tokio::task::spawn_blocking(move || waits.recv().unwrap()).await.unwrap();
    (go, held)
}

/// A write that is in the queue when this returns.
async fn queued<T: Send + 'static>(
    store: &Store,
    change: impl FnOnce(&crate::Tx<'_>) -> Result<T, StoreError> + Send + 'static,
) -> tokio::task::JoinHandle<Result<T, StoreError>> {
    let (writing, before) = (store.clone(), store.writer.capacity());
    let task = tokio::spawn(async move { writing.write(change).await });
    while store.writer.capacity() == before {
        tokio::task::yield_now().await;
    }
    task
}

#[tokio::test]
async fn changes_that_wait_together_are_written_together_and_fail_alone() {
    let (_dir, store) = open();
    let (go, first) = hold(&store).await;
    let refused = queued(&store, |tx| {
        assert!(tx.image(&arn("first"))?.is_some(), "what came before is seen");
        tx.put_image(&image("refused"))?;
        Err::<(), _>(StoreError::Stopped)
    })
    .await;
    let panicked = queued(&store, |tx| {
        tx.put_image(&image("panicked"))?;
        assert!(tx.image(&arn("nothing"))?.is_some(), "not there");
        Ok(())
    })
    .await;
    let (ended, end) = channel();
    let (last_go, last_gate) = channel::<()>();
    let last = queued(&store, move |tx| {
        tx.put_image(&image("last"))?;
        ended.send(()).unwrap();
        last_gate.recv().unwrap();
        Ok(())
    })
    .await;
    go.send(()).unwrap();
    tokio::task::spawn_blocking(move || end.recv().unwrap()).await.unwrap();
    // Every change has been made, and none of it is written: they share what is to come.
    assert!(!first.is_finished() && !refused.is_finished() && !panicked.is_finished());
    assert!(!has(&store, "first"));
    last_go.send(()).unwrap();
    first.await.unwrap().unwrap();
    last.await.unwrap().unwrap();
    assert!(matches!(refused.await.unwrap(), Err(StoreError::Stopped)));
    assert!(panicked.await.unwrap_err().is_panic());
    let found = ["first", "refused", "panicked", "last"].map(|name| has(&store, name));
    assert_eq!(found, [true, false, false, true]);
    store.write(|tx| tx.put_image(&image("later"))).await.unwrap();
    assert!(has(&store, "later"), "the writer goes on");
}

#[tokio::test]
async fn what_a_batch_answered_is_on_the_disk() {
    let (dir, store) = open();
    let (go, first) = hold(&store).await;
    let mut writes = Vec::new();
    for number in 0..300 {
        writes.push(queued(&store, move |tx| tx.put_image(&image(&format!("n{number}")))).await);
    }
    go.send(()).unwrap();
    first.await.unwrap().unwrap();
    // As a power cut would leave it: the files as they are, without the memory that its processes share.
    let crashed = tempfile::tempdir().unwrap();
    let answered: Vec<bool> = writes.iter().map(tokio::task::JoinHandle::is_finished).collect();
    for file in ["db", "db-wal"] {
        std::fs::copy(dir.path().join(file), crashed.path().join(file)).unwrap();
    }
    let after = Store::open(&crashed.path().join("db")).unwrap();
    assert!(has(&after, "first"));
    for (number, answered) in answered.into_iter().enumerate() {
        assert!(!answered || has(&after, &format!("n{number}")), "change {number} was answered, and is lost");
    }
    for write in writes {
        write.await.unwrap().unwrap();
    }
    assert!((0..300).all(|number| has(&store, &format!("n{number}"))));
}

#[tokio::test]
async fn a_transaction_that_sqlite_ended_fails_every_change_of_it() {
    let (_dir, store) = open();
    let (go, first) = hold(&store).await;
    let broken = queued(&store, |tx| Ok(tx.connection.execute_batch("ROLLBACK")?)).await;
    let later = queued(&store, |tx| tx.put_image(&image("later"))).await;
    go.send(()).unwrap();
    assert!(matches!(first.await.unwrap(), Err(StoreError::Commit(_))));
    assert!(broken.await.unwrap().is_err());
    later.await.unwrap().unwrap();
    assert_eq!(["first", "later"].map(|name| has(&store, name)), [false, true]);
}
