//! A disk that a server's data are on, and only they.
//!
//! A file system like those that servers have: what a VMM maps of a file with holes needs no room.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command;

/// By how much less the next attempt to fill it takes: it may have been written to since the look.
const STEP: u64 = 64 << 10;
/// Takes the room.
const BALLAST: &str = "ballast";

/// Makes the directory, with a disk of its own. What is not used of its bytes takes no room on the host.
///
/// # Panics
/// Where it cannot be made.
pub fn mount(data_dir: &Path, bytes: u64) {
    let disk = data_dir.with_extension("disk");
    File::create(&disk).unwrap().set_len(bytes).unwrap();
    // Nothing is kept for root.
    command::must(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&disk));
    fs::create_dir(data_dir).unwrap();
    command::must(Command::new("mount").args(["-o", "loop"]).args([&disk, data_dir]));
    fs::remove_dir(data_dir.join("lost+found")).unwrap();
}

/// Leaves so many bytes of room on it, or next to none.
///
/// # Panics
/// Where it cannot be measured.
pub fn fill(data_dir: &Path, left: u64) {
    let mut room = free(data_dir).saturating_sub(left);
    let take = |bytes: &u64| {
        let mut fallocate = Command::new("fallocate");
        fallocate.args(["-l", &bytes.to_string()]).arg(ballast(data_dir));
        command::run(&mut fallocate).status.success()
    };
    while room > STEP && !take(&room) {
        room -= STEP;
    }
}

/// Gives it all of its room again.
pub fn make_room(data_dir: &Path) {
    // It could not be made where there was no room already.
    let _ = fs::remove_file(ballast(data_dir));
}

fn free(data_dir: &Path) -> u64 {
    let output = command::must(Command::new("stat").args(["-f", "-c", "%S %f"]).arg(data_dir));
    let numbers: Vec<u64> = output.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [block, free] = numbers[..] else { panic!("stat says {output}") };
    block * free
}

fn ballast(data_dir: &Path) -> PathBuf {
    data_dir.join(BALLAST)
}
