//! Decides at each step what becomes of it.

use std::cell::Cell;
use std::ffi::c_int;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::journal::Journal;
use crate::plan::{self, Fault, Kind, Word};

/// What is done with a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    /// The call is not made and gives this error.
    Fail(c_int),
    /// Part of the call is made, with or without the server's death after it.
    Part {
        dies: bool,
    },
    /// The call is made, and then the server or the machine dies.
    DieAfter(Fault),
    /// The call is not made, the server dies.
    DieBefore,
}

pub(crate) struct Layer {
    words: &'static [AtomicU64; plan::WORDS],
    directory: PathBuf,
    roots: Vec<PathBuf>,
    steps: File,
    journal: Mutex<Journal>,
}

thread_local! {
    /// Whether this thread is in a hook already: what the layer itself does is no step.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `act` with the layer, unless there is none or it is the layer's own call.
pub(crate) fn outside<T>(act: impl FnOnce(&'static Layer) -> Option<T>) -> Option<T> {
    static LAYER: OnceLock<Option<Layer>> = OnceLock::new();
    let entered = INSIDE.try_with(|inside| !inside.replace(true)).unwrap_or(false);
    if !entered {
        return None;
    }
    let result = LAYER.get_or_init(Layer::open).as_ref().and_then(act);
    let _ = INSIDE.try_with(|inside| inside.set(false));
    result
}

impl Layer {
    fn open() -> Option<Self> {
        let directory = PathBuf::from(std::env::var_os(plan::DIRECTORY)?);
        let roots = std::env::split_paths(&std::env::var_os(plan::ROOTS)?).collect();
        let file = File::options().read(true).write(true).open(directory.join(plan::PLAN)).ok()?;
        let steps = File::options().append(true).open(directory.join(plan::STEPS)).ok()?;
        let length = plan::WORDS * size_of::<u64>();
        // SAFETY: a new mapping of an open file, whose length the driver has seen to.
        let at = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the mapping is page-aligned, as long as the array, and never taken away.
        let words = unsafe { &*at.cast::<[AtomicU64; plan::WORDS]>() };
        let journal = Mutex::new(Journal::new(directory.join(plan::STASH)));
        Some(Self { words, directory, roots, steps, journal })
    }

    pub(crate) fn watches(&self, path: &Path) -> bool {
        self.roots.iter().any(|root| path.starts_with(root))
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        &self.words[word as usize]
    }

    fn get(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::SeqCst)
    }

    /// What becomes of this step. Called by one thread at a time.
    pub(crate) fn judge(&self, call: &str, path: &Path) -> Verdict {
        let number = self.word(Word::Seen).fetch_add(1, Ordering::SeqCst);
        let Some(fault) = Fault::of(self.get(Word::Fault)) else { return Verdict::Pass };
        let line = format!("{number} {call} {}\n", path.display());
        let _ = self.steps.write_all_at(line.as_bytes(), 0);
        let fails = matches!(fault, Fault::NoSpace | Fault::InputOutput);
        if !fault.befalls(Kind::of(call)) {
            return Verdict::Pass;
        }
        if self.get(Word::After) > 0 {
            self.word(Word::After).fetch_sub(1, Ordering::SeqCst);
            return Verdict::Pass;
        }
        if self.get(Word::Fired) == 0 {
            let _ = self.steps.write_all_at(format!("! {fault:?} at {line}").as_bytes(), 0);
        }
        let fired = self.word(Word::Fired).fetch_add(1, Ordering::SeqCst);
        if fired >= if fails { self.get(Word::Length) } else { 1 } {
            return Verdict::Pass;
        }
        match fault {
            Fault::NoSpace => Verdict::Fail(libc::ENOSPC),
            Fault::InputOutput => Verdict::Fail(libc::EIO),
            Fault::Short => Verdict::Part { dies: false },
            Fault::KillWithin => Verdict::Part { dies: true },
            Fault::KillBefore => Verdict::DieBefore,
            Fault::KillAfter | Fault::PowerCut | Fault::PowerCutTorn | Fault::PowerCutNames => {
                Verdict::DieAfter(fault)
            }
            Fault::Hold | Fault::Full => {
                while self.get(Word::Released) == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                Verdict::Pass
            }
            Fault::Record => Verdict::Pass,
        }
    }

    /// The end of the server or, with `fault`, of the machine. The journal is locked by this very thread.
    pub(crate) fn die(&self, fault: Option<Fault>, journal: &mut Journal) -> ! {
        let cut = fault.filter(|fault| fault.cuts_power());
        // SAFETY: no pointers are passed, and the child of a fork goes on with this one thread, which holds the only
        // lock that it needs.
        unsafe {
            let server = libc::getpid();
            // The server must be gone before what it wrote is taken back, or it would tell a client of that.
            if cut.is_none() || libc::fork() != 0 {
                loop {
                    if cut.is_none() {
                        libc::kill(server, libc::SIGKILL);
                    }
                    libc::pause();
                }
            }
            libc::kill(server, libc::SIGKILL);
            while libc::getppid() == server {
                libc::usleep(500);
            }
        }
        if let Some(fault) = cut {
            journal.undo(fault, self.get(Word::Seed));
        }
        let _ = File::create(self.directory.join(plan::UNDONE));
        // SAFETY: nothing of this process is of use any more.
        unsafe { libc::_exit(0) }
    }
}
