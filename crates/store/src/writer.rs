//! The one writer: changes that wait at the same time share a transaction, and with it the wait for the disk.
//!
//! Each change has a savepoint of its own, so that one which fails takes back what it wrote and nothing else. Nobody is
//! answered before the transaction is on the disk, whatever the answer: a refusal may rest on what another change of
//! the same transaction wrote.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use crate::recent::Recent;
use crate::tx::Written;
use crate::{StoreError, Tx};

/// Changes of one transaction at the most: it bounds how long the first of them waits for the others.
const MAX_BATCH: usize = 128;

/// A change, to be made in a transaction if one could be begun, and what it wrote is noted. What it gives back
/// tells its caller how that ended.
pub(crate) type Change =
    Box<dyn FnOnce(rusqlite::Result<&mut Transaction<'_>>, &mut Written) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), Arc<rusqlite::Error>>) + Send>;

/// What a change came to: its own result, or the panic that it ended with.
pub(crate) type Outcome<T, E> = Result<Result<T, E>, Box<dyn Any + Send>>;

/// `change` with its savepoint, and where its outcome will be.
pub(crate) fn change<T, E>(
    change: impl FnOnce(&Tx<'_>) -> Result<T, E> + Send + 'static,
) -> (Change, oneshot::Receiver<Outcome<T, E>>)
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    let (done, outcome) = oneshot::channel();
    let run: Change = Box::new(move |transaction, written| {
        // Whatever a panic left half done goes with the savepoint.
        let result = catch_unwind(AssertUnwindSafe(|| in_savepoint(transaction, written, change)));
        Box::new(move |committed| {
            let result = match committed {
                Ok(()) => result,
                Err(error) => result.map(|_| Err(StoreError::Commit(error).into())),
            };
            // Nobody waits any more: the change is made all the same, as it was asked for.
            let _ = done.send(result);
        })
    });
    (run, outcome)
}

fn in_savepoint<T, E: From<StoreError>>(
    transaction: rusqlite::Result<&mut Transaction<'_>>,
    written: &mut Written,
    change: impl FnOnce(&Tx<'_>) -> Result<T, E>,
) -> Result<T, E> {
    let savepoint = transaction.and_then(Transaction::savepoint).map_err(StoreError::from)?;
    // An early return drops the savepoint, which rolls back to it.
    let tx = Tx::new(&savepoint);
    let value = change(&tx)?;
    written.add(tx.into_written());
    savepoint.commit().map_err(StoreError::from)?;
    Ok(value)
}

/// Makes the changes of `queue`, in their order, until every sender is gone.
pub(crate) fn run(mut connection: Connection, mut queue: Receiver<Change>, recent: &Recent) {
    while let Some(first) = queue.blocking_recv() {
        let mut answers = Vec::new();
        // Immediate: a change that reads before it writes would fail where another process wrote in between.
        let committed = match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => batch(transaction, first, &mut queue, &mut answers, recent).map_err(Arc::new),
            Err(error) => {
                answers.push(first(Err(error), &mut Written::default()));
                Ok(())
            }
        };
        for answer in answers {
            answer(committed.clone());
        }
    }
}

/// One transaction of `first` and of what is in the queue by the time it is made.
fn batch(
    mut transaction: Transaction<'_>,
    first: Change,
    queue: &mut Receiver<Change>,
    answers: &mut Vec<Answer>,
    recent: &Recent,
) -> rusqlite::Result<()> {
    let (mut next, mut written) = (Some(first), Written::default());
    while let Some(change) = next {
        answers.push(change(Ok(&mut transaction), &mut written));
        // A full disk ends the whole transaction, not the savepoint alone: the commit then fails, for all of them.
        let over = transaction.is_autocommit() || answers.len() == MAX_BATCH;
        next = if over { None } else { queue.try_recv().ok() };
    }
    recent.committing(&written);
    let committed = transaction.commit();
    recent.committed();
    committed
}

#[cfg(test)]
mod tests;
