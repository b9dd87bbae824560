//! Artifacts: zips on disks.

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::Path;

use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const SECTOR: u64 = 512;

/// Zips files given as names and contents.
pub(crate) fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// Zips the files of a directory that has no others.
pub(crate) fn zip_directory(dir: &Path) -> Vec<u8> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read =
        |path: &Path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap());
    let files: Vec<_> = files.iter().map(|path| read(path)).collect();
    let files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    zip(&files)
}

/// Writes a zip as a disk, which has whole sectors.
pub(crate) fn write_disk(zip: &[u8], path: &Path) {
    let mut file = File::create_new(path).unwrap();
    file.write_all(zip).unwrap();
    file.set_len((zip.len() as u64).next_multiple_of(SECTOR)).unwrap();
}
