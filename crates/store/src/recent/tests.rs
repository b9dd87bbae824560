use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::tests::microvm;
use crate::{Store, StoreError, Tx};

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("db")).unwrap();
    (dir, store)
}

async fn put(store: &Store, record: &MicrovmRecord) {
    let written = record.clone();
    store.write(move |tx| tx.put_microvm(&written)).await.unwrap();
}

/// Ids of all MicroVMs, as a look that is kept.
fn all(store: &Store, record: &MicrovmRecord) -> Vec<MicrovmId> {
    let look = |tx: &Tx<'_>| Ok(tx.microvms(&record.account, "", 10)?.iter().map(|shown| shown.id).collect());
    store.read_again::<Vec<MicrovmId>, StoreError>("all", look).unwrap().to_vec()
}

#[tokio::test]
async fn what_was_written_is_what_is_read_next() {
    let (_dir, store) = open();
    let mut record = microvm();
    assert_eq!((store.microvm(record.id).unwrap(), all(&store, &record)), (None, vec![]));
    for memory_mib in [512, 1024, 2048] {
        record.memory_mib = memory_mib;
        put(&store, &record).await;
        for _ in 0..2 {
            assert_eq!(store.microvm(record.id).unwrap().as_deref(), Some(&record));
            assert_eq!(all(&store, &record), [record.id]);
        }
    }
    record.life.terminated_at = Some(7);
    put(&store, &record).await;
    assert_eq!(store.microvm(record.id).unwrap().as_deref(), Some(&record));
    store.write(|tx| tx.forget_microvms_terminated_before(8, 10)).await.unwrap();
    assert_eq!((store.microvm(record.id).unwrap(), all(&store, &record)), (None, vec![]));
}

#[tokio::test]
async fn a_change_that_fails_changes_nothing_that_is_read() {
    let (_dir, store) = open();
    let record = microvm();
    put(&store, &record).await;
    store.microvm(record.id).unwrap();
    let mut other = record.clone();
    other.memory_mib = 1;
    let failed = store.write(move |tx| tx.put_microvm(&other).and(Err::<(), _>(StoreError::Stopped)));
    assert!(failed.await.is_err());
    assert_eq!(store.microvm(record.id).unwrap().as_deref(), Some(&record));
}

#[tokio::test]
async fn others_are_kept_while_one_is_written() {
    let (_dir, store) = open();
    let (kept, written) = (microvm(), microvm());
    put(&store, &kept).await;
    let before = store.microvm(kept.id).unwrap().unwrap();
    put(&store, &written).await;
    assert!(Arc::ptr_eq(&before, &store.microvm(kept.id).unwrap().unwrap()));
}

#[test]
fn what_was_read_before_a_commit_is_not_kept_after_it() {
    let (recent, record) = (Recent::default(), Arc::new(microvm()));
    let keeps = |moment| {
        recent.keep_microvm(moment, &record);
        recent.microvm(record.id).is_ok()
    };
    let moment = || recent.microvm(record.id).unwrap_err();
    let before = moment();
    recent.committing(&Written::default());
    assert!(!keeps(before), "it may be what is about to change");
    assert!(!keeps(moment()), "nor what is read while it does");
    recent.committed();
    assert!(!keeps(before));
    assert!(keeps(moment()));
    recent.committing(&Written { microvms: vec![record.id], ..Written::default() });
    recent.committed();
    assert!(recent.microvm(record.id).is_err());
}

#[test]
fn what_is_kept_is_bounded_and_of_one_type() {
    let recent = Recent::default();
    for number in 0..=MAX_LOOKS {
        let moment = recent.look::<usize>("none").unwrap_err();
        recent.keep_look(moment, &number.to_string(), Arc::new(number));
    }
    assert!(recent.look::<usize>("0").is_err());
    assert_eq!(recent.look::<usize>("1").ok(), Some(Arc::new(1)));
    assert!(recent.look::<String>("1").is_err());
    for _ in 0..=MAX_MICROVMS {
        let record = Arc::new(microvm());
        recent.keep_microvm(recent.microvm(record.id).unwrap_err(), &record);
    }
    assert_eq!(recent.lock().microvms.len(), MAX_MICROVMS);
}

/// Readers go on while one counts up: none sees a count go back, nor less than what was acknowledged before it asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_what_is_older_than_what_somebody_was_told() {
    const WRITES: u32 = 300;
    let (_dir, store) = open();
    let mut record = microvm();
    record.memory_mib = 0;
    put(&store, &record).await;
    let (over, acknowledged) =
        (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::atomic::AtomicU32::new(0)));
    let readers = [(); 2].map(|()| {
        let (store, over, acknowledged) = (store.clone(), Arc::clone(&over), Arc::clone(&acknowledged));
        let record = record.clone();
        std::thread::spawn(move || {
            let (mut seen, mut reads) = (0, 0_u64);
            while !over.load(Ordering::SeqCst) || reads == 0 {
                let least = acknowledged.load(Ordering::SeqCst);
                let kept = store.microvm(record.id).unwrap().unwrap().memory_mib;
                let look = |tx: &Tx<'_>| Ok(tx.microvm(record.id)?.map_or(0, |found| found.memory_mib));
                let looked = *store.read_again::<_, StoreError>("count", look).unwrap();
                assert!(
                    kept >= least.max(seen) && looked >= kept,
                    "{kept} {looked}, after {seen} and {least}"
                );
                (seen, reads) = (looked, reads + 1);
            }
        })
    });
    for count in 1..=WRITES {
        record.memory_mib = count;
        put(&store, &record).await;
        acknowledged.store(count, Ordering::SeqCst);
    }
    over.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.join().unwrap();
    }
}
