//! The axes of what is on record: a server takes turns on copies of its own database, to which records were added.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Image, until};
use guest::Dirs;
use ids::{ImageArn, ImageVersion};
use network::InstanceTag;
use store::{Store, StoreError, Tx};

use super::{Axis, Host, Kind, ROUNDS};
use crate::Failure;
use crate::calls::bed::ended;

/// The first is what the server has anyway.
const IMAGES: [usize; 4] = [1, 10, 100, 1000];
const ENDED: [usize; 4] = [0, 1000, 10_000, 100_000];
/// Records written in one transaction.
const CHUNK: usize = 10_000;
const DATABASE: &str = "db";
const LOG: &str = "db-wal";
/// For a database that nobody uses any more to be closed.
const CLOSE: Duration = Duration::from_secs(60);

pub(super) fn measure(kind: Kind, host: &mut Host, base: &Image) -> Result<Axis, Failure> {
    let image: ImageArn = base.arn.parse()?;
    let numbers = if kind == Kind::Images { IMAGES } else { ENDED };
    let mut axis = Axis::new(kind, numbers.map(|number| number as u64));
    host.server.kill();
    let data = host.server.data_dir().to_owned();
    let databases = numbers.map(|number| host.server.scratch(&format!("{DATABASE}-{number}")));
    for (number, database) in numbers.iter().zip(&databases) {
        copy_database(&data, database)?;
        host.runtime.block_on(fill(kind, database, &data, &image, *number))?;
    }
    for _ in 0..ROUNDS {
        for (database, point) in databases.iter().zip(&mut axis.points) {
            copy_database(database, &data)?;
            point.turn(host, base)?;
            host.server.kill();
        }
    }
    copy_database(&databases[0], &data)?;
    host.server.restart();
    Ok(axis)
}

/// Puts the files of a database in place of those that are there. No program may use either.
fn copy_database(from: &Path, to: &Path) -> Result<(), Failure> {
    let files = |dir: &Path| -> Result<Vec<PathBuf>, Failure> {
        let paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, Failure>>()?;
        let is_its = |path: &PathBuf| {
            path.is_file()
                && path.file_stem().is_some_and(|name| name.to_string_lossy().starts_with(DATABASE))
        };
        Ok(paths.into_iter().filter(is_its).collect())
    };
    fs::create_dir_all(to)?;
    files(to)?.iter().try_for_each(fs::remove_file)?;
    for file in files(from)? {
        let copy = to.join(file.file_name().ok_or("a file without a name")?);
        fs::copy(&file, &copy)?;
        // Else the disk is busy with it while launches are measured.
        fs::File::open(&copy)?.sync_all()?;
    }
    Ok(())
}

async fn fill(
    kind: Kind,
    database: &Path,
    data: &Path,
    image: &ImageArn,
    number: usize,
) -> Result<(), Failure> {
    let store = Store::open(&database.join(DATABASE))?;
    if kind == Kind::Images {
        add_images(&store, data, image, number).await?;
    } else {
        add_ended(&store, image, number).await?;
    }
    drop(store);
    // Its writer is a thread of its own, and the last to go merges the log: nobody does, where both go at the same moment.
    until("the database to be closed", CLOSE, || {
        let is_closed = !database.join(LOG).exists();
        if !is_closed {
            drop(Store::open(&database.join(DATABASE)));
        }
        is_closed.then_some(())
    });
    Ok(())
}

async fn add_ended(store: &Store, image: &ImageArn, number: usize) -> Result<(), Failure> {
    for start in (0..number).step_by(CHUNK) {
        let made: Vec<_> = (start..number.min(start + CHUNK)).map(|_| ended(image.clone())).collect();
        store.write(move |tx: &Tx<'_>| made.iter().try_for_each(|record| tx.put_microvm(record))).await?;
    }
    Ok(())
}

/// Copies of an image's records under other names, with links to its files.
async fn add_images(store: &Store, data: &Path, image: &ImageArn, number: usize) -> Result<(), Failure> {
    let found =
        |tx: &Tx<'_>| Ok::<_, StoreError>((tx.image(image)?, tx.version(image, ImageVersion::FIRST)?));
    let (Some(record), Some(version)) = store.read(found)? else {
        return Err("the image is not on record".into());
    };
    let dirs = Dirs::new(data, &InstanceTag::of_data_dir(data));
    let names =
        (1..number).map(|copy| Ok(ImageArn { name: format!("copy-{copy}").parse()?, ..image.clone() }));
    let names = names.collect::<Result<Vec<_>, Failure>>()?;
    for copy in &names {
        link(&dirs.version(image, ImageVersion::FIRST), &dirs.version(copy, ImageVersion::FIRST))?;
    }
    let write = move |tx: &Tx<'_>| {
        names.into_iter().try_for_each(|copy| {
            tx.put_image(&store::ImageRecord { arn: copy.clone(), ..record.clone() })?;
            tx.put_version(&store::VersionRecord { image: copy, ..version.clone() })
        })
    };
    Ok(store.write(write).await?)
}

fn link(from: &Path, to: &Path) -> Result<(), Failure> {
    if to.exists() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::hard_link(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
