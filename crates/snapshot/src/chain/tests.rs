//! A machine of which only the memory is there, through lives, suspensions, merges and crashes.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const PAGE: usize = 4096;
const PAGES: usize = 600;
const NEVER: &(dyn Fn() -> bool + Sync) = &|| false;

struct World {
    dir: tempfile::TempDir,
    base: PathBuf,
    layers: Vec<PathBuf>,
    /// What the machine has in its memory.
    memory: Vec<u8>,
    /// What the last suspension is to give back.
    saved: Vec<u8>,
    /// Pages that are the machine's own.
    touched: Vec<bool>,
    files: usize,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        let mut memory = vec![0; PAGES * PAGE];
        // Every third page of the base is not zero; the others are holes, or zeros that were written.
        let file = File::create(&base).unwrap();
        file.set_len(memory.len() as u64).unwrap();
        for page in (0..PAGES).filter(|page| page % 3 == 0) {
            let bytes = &mut memory[page * PAGE..][..PAGE];
            bytes.fill((page % 2) as u8 * 3);
            file.write_all_at(bytes, (page * PAGE) as u64).unwrap();
        }
        let saved = memory.clone();
        Self { dir, base, layers: vec![], memory, saved, touched: vec![false; PAGES], files: 0 }
    }

    fn chain(&self) -> Result<Chain, ChainError> {
        Chain::open(&self.base, PAGE as u32, &self.layers)
    }

    fn write(&mut self, page: usize, value: u8) {
        self.memory[page * PAGE..][..PAGE].fill(value);
        self.touched[page] = true;
    }

    fn new_file(&mut self) -> (PathBuf, File) {
        self.files += 1;
        let path = self.dir.path().join(self.files.to_string());
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        (path, file)
    }

    fn save(&mut self, given_up: &(dyn Fn() -> bool + Sync)) -> Result<Summary, WriteError> {
        let below = if self.layers.len() >= MAX_LAYERS { vec![] } else { self.layers.clone() };
        let chain = Chain::open(&self.base, PAGE as u32, &below).unwrap();
        let (path, file) = self.new_file();
        let touched: Vec<Pages> = (0..PAGES as u64)
            .filter(|page| self.touched[*page as usize])
            .map(|page| page..page + 1)
            .collect();
        let memory = &self.memory;
        let read = |at: u64, buffer: &mut [u8]| {
            buffer.copy_from_slice(&memory[at as usize..][..buffer.len()]);
            Ok(())
        };
        let summary = chain.save(&file, &touched, read, given_up)?;
        self.layers = below;
        self.layers.push(path);
        self.saved.clone_from(&self.memory);
        Ok(summary)
    }

    /// A new process: nothing but the base is in its memory until the chain is written over it.
    fn restore(&mut self) -> Result<(), ReadError> {
        let chain = self.chain().map_err(|error| error.source)?;
        self.memory = fs::read(&self.base).unwrap();
        self.touched.fill(false);
        let (memory, touched) = (&mut self.memory, &mut self.touched);
        let mut seen = BTreeMap::new();
        chain.restore(|at, bytes| {
            memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
            let pages = at as usize / PAGE..(at as usize + bytes.len()) / PAGE;
            touched[pages.clone()].fill(true);
            pages.for_each(|page| *seen.entry(page).or_insert(0) += 1);
            Ok(())
        })?;
        assert!(seen.values().all(|times| *times == 1), "a page was read twice");
        Ok(())
    }

    fn merge(&mut self) {
        let chain = self.chain().unwrap();
        let (path, file) = self.new_file();
        chain.merge(&file, NEVER).unwrap();
        self.layers = vec![path];
    }
}

#[derive(Debug, Clone)]
enum Step {
    Write(usize, u8),
    /// The VMM's page is dropped, and with that the base's again.
    Drop(usize),
    /// Suspended and resumed.
    Sleep,
    /// Suspended to a point, then woken instead.
    GiveUp,
    Merge,
    /// The VMM dies: what was suspended last is all there is.
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..PAGES, 0_u8..4).prop_map(|(page, value)| Step::Write(page, value)),
        1 => (0..PAGES).prop_map(Step::Drop),
        4 => Just(Step::Sleep),
        1 => Just(Step::GiveUp),
        1 => Just(Step::Merge),
        1 => Just(Step::Crash),
    ];
    vec(step, 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_the_memory_that_was_comes_back(steps in steps()) {
        let mut world = World::new();
        let base = world.memory.clone();
        for step in steps {
            match step {
                Step::Write(page, value) => world.write(page, value),
                Step::Drop(page) => {
                    let range = page * PAGE..(page + 1) * PAGE;
                    world.memory[range.clone()].copy_from_slice(&base[range]);
                    world.touched[page] = false;
                }
                Step::Sleep => {
                    world.save(NEVER).unwrap();
                    prop_assert!(world.layers.len() <= MAX_LAYERS);
                    world.restore().unwrap();
                }
                Step::GiveUp => {
                    let _ = world.save(&|| true);
                    continue;
                }
                Step::Merge => world.merge(),
                Step::Crash => world.restore().unwrap(),
            }
            if matches!(step, Step::Sleep | Step::Crash) {
                prop_assert!(world.memory == world.saved);
            }
        }
        world.restore().unwrap();
        prop_assert!(world.memory == world.saved);
    }

    #[test]
    fn a_flipped_bit_gives_the_same_memory_or_none(layer in 0_usize..3, at: u32, bit in 0_u8..8) {
        let mut world = World::new();
        for life in 0..3 {
            (0..40).for_each(|page| world.write(page * 7 + life * 11, life as u8 + 1));
            world.save(NEVER).unwrap();
        }
        let file = OpenOptions::new().read(true).write(true).open(&world.layers[layer]).unwrap();
        let length = file.metadata().unwrap().len();
        let at = u64::from(at) % length;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 1 << bit], at).unwrap();
        // Pages that a newer layer covers are not read, and the rest of the header's page says nothing.
        if world.restore().is_ok() {
            prop_assert!(world.memory == world.saved);
            prop_assert!(at >= 128, "a header's bit was not noticed");
        }
    }
}

#[test]
fn only_what_differs_from_the_layers_below_is_written() {
    let mut world = World::new();
    (0..100).for_each(|page| world.write(page, 9));
    assert_eq!(world.save(NEVER).unwrap().pages, 100);
    world.restore().unwrap();
    assert_eq!(world.save(NEVER).unwrap().pages, 0);
    world.restore().unwrap();
    world.write(5, 1);
    // The same as before, and as the base, are no difference; zeros are one that takes no bytes.
    world.write(6, 9);
    world.write(301, 0);
    world.write(7, 0);
    let summary = world.save(NEVER).unwrap();
    assert_eq!((summary.pages, summary.file_bytes), (2, 2 * PAGE as u64 + 24));
    world.restore().unwrap();
    assert!(world.memory == world.saved);
}

#[test]
fn layers_of_another_chain_or_order_are_refused() {
    let mut world = World::new();
    for value in 1..4 {
        world.write(1, value);
        world.save(NEVER).unwrap();
    }
    let right = world.layers.clone();
    let [one, two, three] = [0, 1, 2].map(|index: usize| right[index].clone());
    for wrong in [vec![two.clone()], vec![one.clone(), three.clone()], vec![two, one, three]] {
        world.layers = wrong;
        assert!(matches!(world.restore(), Err(ReadError::Foreign)));
    }
}

#[test]
fn what_is_given_up_is_no_layer() {
    let mut world = World::new();
    world.write(1, 1);
    assert!(matches!(world.save(&|| true), Err(WriteError::GivenUp)));
    let half = world.dir.path().join("1");
    assert!(Chain::open(&world.base, PAGE as u32, &[half]).is_err());
}
