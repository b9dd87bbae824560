//! What the driver and the layer in the server tell each other: words in a file that the layer has mapped.

/// What is done to the server at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u64)]
pub enum Fault {
    /// Killed before the call is made.
    KillBefore = 1,
    /// Killed once the call is made, before its result is seen.
    KillAfter = 2,
    /// Killed when part of a write was made.
    KillWithin = 3,
    /// The disk is full: ENOSPC, for [`Word::Length`] steps.
    NoSpace = 4,
    /// The disk fails: EIO, for [`Word::Length`] steps.
    InputOutput = 5,
    /// A write takes part of the bytes only, and says so.
    Short = 6,
    /// The power fails after the call: whatever was not synced, data or name, is undone.
    PowerCut = 7,
    /// The same, but data that was not synced is there in part.
    PowerCutTorn = 8,
    /// The same, but all names are there, and only data is missing.
    PowerCutNames = 9,
    /// The step waits until [`Word::Released`], for something else to be done meanwhile.
    Hold = 10,
    /// The step waits likewise while the disk is filled up: for the server and, unlike with the others, for the VMMs.
    Full = 11,
    /// Nothing: the steps are noted.
    Record = 12,
}

impl Fault {
    /// All that do something.
    pub const ALL: [Self; 11] = [
        Self::KillBefore,
        Self::KillAfter,
        Self::KillWithin,
        Self::NoSpace,
        Self::InputOutput,
        Self::Short,
        Self::PowerCut,
        Self::PowerCutTorn,
        Self::PowerCutNames,
        Self::Hold,
        Self::Full,
    ];

    /// The one of this number.
    #[must_use]
    pub fn of(number: u64) -> Option<Self> {
        Self::ALL.into_iter().chain([Self::Record]).find(|fault| *fault as u64 == number)
    }

    /// Whether it can befall a step of this kind.
    #[must_use]
    pub fn befalls(self, kind: Kind) -> bool {
        match self {
            Self::KillWithin | Self::Short => kind == Kind::Data,
            Self::NoSpace => kind != Kind::Remove,
            Self::Record => false,
            _ => true,
        }
    }

    /// Whether the server is gone afterwards.
    #[must_use]
    pub fn ends_the_server(self) -> bool {
        self.cuts_power() || matches!(self, Self::KillBefore | Self::KillAfter | Self::KillWithin)
    }

    /// Whether the machine loses its power.
    #[must_use]
    pub fn cuts_power(self) -> bool {
        matches!(self, Self::PowerCut | Self::PowerCutTorn | Self::PowerCutNames)
    }
}

/// What a call does to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It writes data, and may write less than it was asked to.
    Data,
    /// It makes something, and needs room for it.
    Grow,
    /// It makes what was written before durable.
    Sync,
    /// It takes something away.
    Remove,
}

impl Kind {
    /// Of the calls that are watched, by libc's names.
    #[must_use]
    pub fn of(call: &str) -> Self {
        match call {
            "write" | "pwrite" | "writev" | "pwritev" | "copy_file_range" | "sendfile" => Self::Data,
            "fsync" | "fdatasync" => Self::Sync,
            "unlink" | "rmdir" => Self::Remove,
            _ => Self::Grow,
        }
    }
}

/// Where each word is, counted in words of 64 bits.
#[derive(Debug, Clone, Copy)]
#[repr(usize)]
pub enum Word {
    /// A [`Fault`]; 0 for none. Written last.
    Fault,
    /// Steps that pass before it.
    After,
    /// Steps that fail.
    Length,
    /// For what is left to chance.
    Seed,
    /// Set by the layer once the fault has happened.
    Fired,
    /// Ends a [`Fault::Hold`].
    Released,
    /// Steps seen since the start, counted by the layer.
    Seen,
}

/// Words in the file.
pub const WORDS: usize = 7;
/// The variable that names the directory of the files below.
pub const DIRECTORY: &str = "REKINDLE_FAULTS";
/// The variable that names what is watched: directories, with colons in between.
pub const ROOTS: &str = "REKINDLE_FAULTS_ROOTS";
/// The words.
pub const PLAN: &str = "plan";
/// The steps seen while a fault was planned: number, call, path.
pub const STEPS: &str = "steps";
/// Files that were removed, for as long as that may be undone.
pub const STASH: &str = "stash";
/// Appears once a power cut has undone what it undoes.
pub const UNDONE: &str = "undone";
