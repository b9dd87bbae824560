//! The server under attack, with the layer between it and its files.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use e2e::census::{self, Census};
use e2e::command::{self, Environment};
use e2e::{Artifact, Image, ImageRequest, Server, disk, until};

use rekindle_faults::plan::{self, Fault, Word};

/// The name of the image that MicroVMs are launched from.
const PROBE: &str = "probe";
/// Of the disk that the server's data are on.
const DISK_BYTES: u64 = 8 << 30;
/// Network slots that a server keeps ready: the default of its settings.
const READY_SLOTS: usize = 4;
/// For a server whose end has come to be gone.
const DEATH: Duration = Duration::from_secs(30);

/// What is watched of a data directory, besides the directory below `/run`: all but logs, which every look of the driver
/// adds to, and what only the first start writes.
const WATCHED: [&str; 10] =
    ["db", "db-wal", "db-shm", "db-journal", "images", "microvms", "builds", "objects", "spares", "overlays"];

/// A fault and the step that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) fault: Fault,
    /// Steps that could have it and pass before.
    pub(crate) after: u64,
    /// How many steps fail, where it does not kill.
    pub(crate) length: u64,
    pub(crate) seed: u64,
}

pub(crate) struct Bed {
    pub(crate) server: Server,
    pub(crate) image: Image,
    words: Words,
    directory: PathBuf,
}

/// What the layer reads and writes too.
#[derive(Debug)]
pub(crate) struct Words(File);

impl Words {
    fn open(directory: &Path) -> Self {
        Self(File::options().read(true).write(true).open(directory.join(plan::PLAN)).unwrap())
    }

    fn set(&self, word: Word, value: u64) {
        self.0.write_all_at(&value.to_ne_bytes(), word as u64 * 8).unwrap();
    }

    fn get(&self, word: Word) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, word as u64 * 8).unwrap();
        u64::from_ne_bytes(bytes)
    }

    pub(crate) fn fired(&self) -> bool {
        self.get(Word::Fired) > 0
    }

    /// Lets a held step go on.
    pub(crate) fn release(&self) {
        self.set(Word::Released, 1);
    }
}

impl Bed {
    /// A server with the probe's image ready: from the data directory `kept`, which is made where there is none.
    pub(crate) fn start(kept: Option<&Path>) -> Self {
        let filled = kept.filter(|kept| kept.exists());
        let server = Server::start_under(&[], |data_dir| {
            disk::mount(data_dir, DISK_BYTES);
            if let Some(kept) = filled {
                copy(kept, data_dir);
            }
            prepare(data_dir)
        });
        let directory = directory(server.data_dir());
        let words = Words::open(&directory);
        let image = match filled {
            Some(_) => probe(&server),
            None => ImageRequest::of(&server, PROBE, &Artifact::probe()).create(&server).built(&server),
        };
        if let Some(kept) = kept.filter(|kept| !kept.exists()) {
            copy(server.data_dir(), kept);
        }
        Self { server, image, words, directory }
    }

    /// From now on the steps are noted, and the fault is on its way.
    pub(crate) fn arm(&self, planned: Planned) {
        self.disarm();
        fs::write(self.directory.join(plan::STEPS), "").unwrap();
        let _ = fs::remove_file(self.directory.join(plan::UNDONE));
        let words = [
            (Word::Fired, 0),
            (Word::Released, 0),
            (Word::After, planned.after),
            (Word::Length, planned.length),
            (Word::Seed, planned.seed),
            (Word::Fault, planned.fault as u64),
        ];
        words.into_iter().for_each(|(word, value)| self.words.set(word, value));
    }

    /// Nothing fails any more.
    pub(crate) fn disarm(&self) {
        self.words.set(Word::Fault, 0);
        // What this run had is not the next one's, which some scenarios arm only after a while.
        self.words.set(Word::Fired, 0);
        self.words.release();
    }

    pub(crate) fn fired(&self) -> bool {
        self.words.fired()
    }

    /// The same words, for another thread.
    pub(crate) fn watcher(&self) -> Words {
        Words::open(&self.directory)
    }

    /// The steps since the fault was planned, and the one that had it.
    pub(crate) fn steps(&self) -> (Vec<String>, Option<String>) {
        let text = fs::read_to_string(self.directory.join(plan::STEPS)).unwrap_or_default();
        let hit = text.lines().find_map(|line| line.strip_prefix("! ")).map(|line| self.short(line));
        let steps = text.lines().filter(|line| !line.starts_with('!'));
        (steps.map(|line| self.short(line)).collect(), hit)
    }

    /// Without this run's paths.
    fn short(&self, line: &str) -> String {
        line.replace(&format!("{}/", self.server.data_dir().display()), "")
    }

    /// The server is dying: starts it again once that, and what the power cut took, is over.
    pub(crate) fn recover(&mut self, fault: Fault) {
        until("the server to die", DEATH, || self.server.has_ended().then_some(()));
        if fault.cuts_power() {
            let undone = self.directory.join(plan::UNDONE);
            until("the power cut to be over", DEATH, || undone.exists().then_some(()));
            census::remove(self.server.data_dir());
        }
        self.restart();
    }

    pub(crate) fn restart(&mut self) {
        self.disarm();
        self.server.restart();
        let _ = fs::remove_dir_all(self.directory.join(plan::STASH));
        fs::create_dir_all(self.directory.join(plan::STASH)).unwrap();
    }

    /// After a failure: ends every MicroVM, by force where it must be, so that the next run has nothing of this one.
    pub(crate) fn begin_again(&mut self) {
        self.disarm();
        if !self.server.has_ended() {
            self.server.kill();
        }
        self.restart();
        self.server.end_microvms();
        for image in images(&self.server).into_iter().filter(|image| image.arn != self.image.arn) {
            let _ = image.settled(&self.server);
            image.delete(&self.server);
        }
    }

    /// Ends the server, of which nothing may be left on the host.
    pub(crate) fn stop(self) {
        let Self { mut server, words, .. } = self;
        // It is on the disk that goes with the server.
        drop(words);
        server.stop();
    }

    /// What there is of MicroVMs other than `living`, and of builds; spare clones may come and go.
    pub(crate) fn leftovers(&self, living: &[&str], limit: Duration) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let left = self.look(living);
            if left.is_empty() {
                return Ok(());
            }
            if began.elapsed() > limit {
                return Err(format!("left behind: {left:?}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn look(&self, living: &[&str]) -> Vec<String> {
        let foreign = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            !living.contains(&&*name) && !name.starts_with("spare-")
        };
        let census = Census::of(self.server.data_dir());
        let mut left: Vec<String> =
            census.files.iter().filter(|path| foreign(path)).map(|path| path.display().to_string()).collect();
        let known = |dir: &str| census::vmms_of(&self.server.data_dir().join(dir));
        let mut owned: Vec<i32> = living.iter().flat_map(|id| known(&format!("microvms/{id}"))).collect();
        owned.extend(spare_vmms(&census::run_dir(self.server.data_dir())));
        left.extend(census.vmms.iter().filter(|pid| !owned.contains(pid)).map(|pid| format!("VMM {pid}")));
        let slots = slots(&census::run_dir(self.server.data_dir()));
        let unheld = census.namespaces.iter().filter(|name| !slots.contains(*name));
        // As many are kept ready.
        left.extend(unheld.skip(READY_SLOTS).cloned());
        let unused =
            |group: &PathBuf| !group.file_name().is_some_and(|name| slots.contains(&*name.to_string_lossy()));
        let groups = census.cgroups.iter().flat_map(|group| directories(group)).filter(unused);
        left.extend(groups.map(|group| group.display().to_string()));
        left.extend(staging(&self.server.data_dir().join("images")));
        left
    }
}

fn images(server: &Server) -> Vec<Image> {
    let images = server.aws(&["lambda-microvms", "list-microvm-images"]);
    let items = images["items"].as_array().map_or(&[][..], Vec::as_slice);
    let arns = items.iter().filter_map(|image| image["imageArn"].as_str());
    arns.map(|arn| Image { arn: arn.to_owned() }).collect()
}

/// The image of the probe, among those of a data directory that was kept.
fn probe(server: &Server) -> Image {
    let name = format!(":{PROBE}");
    images(server)
        .into_iter()
        .find(|image| image.arn.ends_with(&name))
        .expect("the probe's image is not kept")
}

fn copy(from: &Path, to: &Path) {
    command::must(Command::new("cp").args(["-aT", "--sparse=always"]).arg(from).arg(to));
}

fn directory(data_dir: &Path) -> PathBuf {
    // Hard links keep what is removed, so it is on the same disk.
    data_dir.join("faults")
}

fn prepare(data_dir: &Path) -> Environment {
    let directory = directory(data_dir);
    fs::create_dir_all(directory.join(plan::STASH)).unwrap();
    fs::write(directory.join(plan::PLAN), vec![0; plan::WORDS * 8]).unwrap();
    fs::write(directory.join(plan::STEPS), "").unwrap();
    let library = library();
    assert!(library.exists(), "there is no {}: run `make faults`", library.display());
    let roots = WATCHED.iter().map(|name| data_dir.join(name)).chain([census::run_dir(data_dir)]);
    let roots: Vec<String> = roots.map(|root| root.display().to_string()).collect();
    let variable = |name: &str, value: String| (name.to_owned(), value);
    [
        variable("LD_PRELOAD", library.display().to_string()),
        variable(plan::DIRECTORY, directory.display().to_string()),
        variable(plan::ROOTS, roots.join(":")),
        variable("RUST_LOG", "info".to_owned()),
    ]
    .into()
}

/// Built beside this program.
fn library() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.with_file_name("librekindle_faults_preload.so")
}

/// The slots of the guests that have a directory below `/run`.
fn slots(run: &Path) -> String {
    let records = directories(run).into_iter().map(|guest| guest.join("guest.json"));
    records.filter_map(|record| fs::read_to_string(record).ok()).collect()
}

/// The VMMs of spares: those that wait for a wake have no disk of their own to be known by.
fn spare_vmms(run: &Path) -> Vec<i32> {
    let is_spare =
        |dir: &PathBuf| dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with("spare-"));
    let pid = |dir: PathBuf| fs::read_to_string(dir.join("pid")).ok()?.split_once(' ')?.0.parse().ok();
    directories(run).into_iter().filter(is_spare).filter_map(pid).collect()
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).collect()
}

/// Directories that only a build has which is under way.
fn staging(dir: &Path) -> Vec<String> {
    let of = |path: &PathBuf| {
        let unfinished = path.extension().is_some_and(|ending| ending == "staging");
        if unfinished { vec![path.display().to_string()] } else { staging(path) }
    };
    directories(dir).iter().flat_map(of).collect()
}
