//! The functions of libc that change files, as the server's calls find them.
//!
//! Each makes the system call itself: what it stands in for does no more than that.

use std::ffi::{c_char, c_int, c_long, c_uint, c_void};
use std::path::{Path, PathBuf};

use libc::{iovec, mode_t, off_t, size_t, ssize_t};

use crate::journal::{Journal, Name};
use crate::layer::{Layer, Verdict, outside};
use crate::paths;

/// How much of a call is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Part,
}

/// Makes a call as the layer decides. `before` notes what it is about to change; `after` that it was made.
fn step<N>(
    layer: &Layer,
    (call, path): (&str, &Path),
    before: impl FnOnce(&mut Journal) -> N,
    act: impl Fn(Extent) -> c_long,
    after: impl FnOnce(&mut Journal, N),
) -> c_long {
    // Held over the call, so that the journal's order is the disk's.
    let mut journal = layer.journal();
    let verdict = layer.judge(call, path);
    match verdict {
        Verdict::Fail(errno) => {
            // SAFETY: the address of this thread's own errno.
            unsafe { *libc::__errno_location() = errno };
            return -1;
        }
        Verdict::DieBefore => layer.die(None, &mut journal),
        _ => {}
    }
    let note = before(&mut journal);
    let part = matches!(verdict, Verdict::Part { .. });
    let result = act(if part { Extent::Part } else { Extent::Whole });
    if result >= 0 {
        after(&mut journal, note);
    }
    match verdict {
        Verdict::Part { dies: true } => layer.die(None, &mut journal),
        Verdict::DieAfter(fault) => layer.die(Some(fault), &mut journal),
        _ => result,
    }
}

/// A write to an open file, at `offset` or where the file stands.
fn write_to(
    call: &str,
    fd: c_int,
    offset: Option<off_t>,
    count: usize,
    act: impl Fn(Extent) -> c_long,
) -> ssize_t {
    let made = outside(|layer| {
        let path = paths::of_fd(fd).filter(|path| layer.watches(path))?;
        let before = |journal: &mut Journal| journal.changes(&path, offset_of(fd, offset), count as u64);
        Some(step(layer, (call, &path), before, &act, |_, ()| ()))
    });
    made.unwrap_or_else(|| act(Extent::Whole)) as ssize_t
}

fn offset_of(fd: c_int, offset: Option<off_t>) -> u64 {
    // SAFETY: neither call is given a pointer.
    let at = offset.unwrap_or_else(|| unsafe {
        let appends = libc::fcntl(fd, libc::F_GETFL) & libc::O_APPEND != 0;
        // What is appended overwrites nothing.
        if appends { off_t::MAX } else { libc::lseek(fd, 0, libc::SEEK_CUR) }
    });
    u64::try_from(at).unwrap_or_default()
}

/// Half of a write, but something.
fn portion(extent: Extent, count: usize) -> usize {
    if extent == Extent::Whole || count == 0 { count } else { count.div_ceil(2) }
}

/// # Safety
/// As write(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, count: size_t) -> ssize_t {
    // SAFETY: the caller's own arguments, or fewer bytes of them.
    let act = |extent| unsafe { libc::syscall(libc::SYS_write, fd, buffer, portion(extent, count)) };
    write_to("write", fd, None, count, act)
}

/// # Safety
/// As pwrite(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(fd: c_int, buffer: *const c_void, count: size_t, offset: off_t) -> ssize_t {
    // SAFETY: the caller's own arguments, or fewer bytes of them.
    let act =
        |extent| unsafe { libc::syscall(libc::SYS_pwrite64, fd, buffer, portion(extent, count), offset) };
    write_to("pwrite", fd, Some(offset), count, act)
}

/// # Safety
/// As pwrite(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, buffer: *const c_void, count: size_t, offset: off_t) -> ssize_t {
    // SAFETY: as the caller says.
    unsafe { pwrite(fd, buffer, count, offset) }
}

/// # Safety
/// As writev(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, vectors: *const iovec, count: c_int) -> ssize_t {
    // SAFETY: the caller's own arguments, or fewer of the vectors.
    let act =
        |extent| unsafe { libc::syscall(libc::SYS_writev, fd, vectors, portion(extent, count as usize)) };
    // SAFETY: as the caller says.
    write_to("writev", fd, None, unsafe { length_of(vectors, count) }, act)
}

/// # Safety
/// As pwritev(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev(fd: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t {
    // SAFETY: the caller's own arguments, or fewer of the vectors.
    let act = |extent| unsafe {
        libc::syscall(libc::SYS_pwritev, fd, vectors, portion(extent, count as usize), offset, 0)
    };
    // SAFETY: as the caller says.
    write_to("pwritev", fd, Some(offset), unsafe { length_of(vectors, count) }, act)
}

/// # Safety
/// As pwritev(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwritev64(fd: c_int, vectors: *const iovec, count: c_int, offset: off_t) -> ssize_t {
    // SAFETY: as the caller says.
    unsafe { pwritev(fd, vectors, count, offset) }
}

/// # Safety
/// `vectors` are `count` of them, or none.
unsafe fn length_of(vectors: *const iovec, count: c_int) -> usize {
    let count = usize::try_from(count).unwrap_or_default();
    // SAFETY: as the caller says.
    (0..count).map(|at| unsafe { (*vectors.add(at)).iov_len }).sum()
}

/// # Safety
/// As copy_file_range(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn copy_file_range(
    from: c_int,
    from_offset: *mut off_t,
    to: c_int,
    to_offset: *mut off_t,
    count: size_t,
    flags: c_uint,
) -> ssize_t {
    // SAFETY: the caller's own arguments, or fewer bytes of them.
    let act = |extent| unsafe {
        let count = portion(extent, count);
        libc::syscall(libc::SYS_copy_file_range, from, from_offset, to, to_offset, count, flags)
    };
    // SAFETY: the caller's pointer, where there is one.
    let offset = unsafe { to_offset.as_ref() }.copied();
    write_to("copy_file_range", to, offset, count, act)
}

/// # Safety
/// As sendfile(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendfile(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: the caller's own arguments, or fewer bytes of them.
    let act = |extent| unsafe { libc::syscall(libc::SYS_sendfile, to, from, offset, portion(extent, count)) };
    write_to("sendfile", to, None, count, act)
}

/// # Safety
/// As sendfile(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendfile64(to: c_int, from: c_int, offset: *mut off_t, count: size_t) -> ssize_t {
    // SAFETY: as the caller says.
    unsafe { sendfile(to, from, offset, count) }
}

fn change_length(call: &str, fd: c_int, length: off_t, act: impl Fn() -> c_long) -> c_int {
    let made = outside(|layer| {
        let path = paths::of_fd(fd).filter(|path| layer.watches(path))?;
        let from = u64::try_from(length).unwrap_or_default();
        let before = |journal: &mut Journal| journal.changes(&path, from, u64::MAX);
        Some(step(layer, (call, &path), before, |_| act(), |_, ()| ()))
    });
    made.unwrap_or_else(act) as c_int
}

/// # Safety
/// As ftruncate(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate(fd: c_int, length: off_t) -> c_int {
    // SAFETY: no pointer is passed.
    change_length("ftruncate", fd, length, || unsafe { libc::syscall(libc::SYS_ftruncate, fd, length) })
}

/// # Safety
/// As ftruncate(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, length: off_t) -> c_int {
    // SAFETY: as the caller says.
    unsafe { ftruncate(fd, length) }
}

/// # Safety
/// As fallocate(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fallocate(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    // SAFETY: no pointer is passed.
    let act = || unsafe { libc::syscall(libc::SYS_fallocate, fd, mode, offset, length) };
    change_length("fallocate", fd, offset, act)
}

/// # Safety
/// As fallocate(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fallocate64(fd: c_int, mode: c_int, offset: off_t, length: off_t) -> c_int {
    // SAFETY: as the caller says.
    unsafe { fallocate(fd, mode, offset, length) }
}

fn sync(call: &str, fd: c_int, act: impl Fn() -> c_long) -> c_int {
    let made = outside(|layer| {
        let path = paths::of_fd(fd).filter(|path| layer.watches(path))?;
        let after = |journal: &mut Journal, ()| journal.synced(&path);
        Some(step(layer, (call, &path), |_| (), |_| act(), after))
    });
    made.unwrap_or_else(act) as c_int
}

/// # Safety
/// As fsync(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    // SAFETY: no pointer is passed.
    sync("fsync", fd, || unsafe { libc::syscall(libc::SYS_fsync, fd) })
}

/// # Safety
/// As fdatasync(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: no pointer is passed.
    sync("fdatasync", fd, || unsafe { libc::syscall(libc::SYS_fdatasync, fd) })
}

/// A change of names. `before` notes what it is about to change, and gives the note to be kept once it is made.
fn change_name(
    (call, path): (&str, Option<PathBuf>),
    before: impl FnOnce(&mut Journal, PathBuf) -> Option<Name>,
    act: impl Fn() -> c_long,
) -> c_int {
    let made = outside(|layer| {
        let path = path.filter(|path| layer.watches(path))?;
        let after = |journal: &mut Journal, name: Option<Name>| {
            if let Some(name) = name {
                journal.named(name);
            }
        };
        let before = |journal: &mut Journal| before(journal, path.clone());
        Some(step(layer, (call, &path), before, |_| act(), after))
    });
    made.unwrap_or_else(act) as c_int
}

/// # Safety
/// As openat(2).
unsafe fn open_as(call: &str, directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's own arguments.
    let act = || unsafe { libc::syscall(libc::SYS_openat, directory, path, flags, mode) };
    if flags & (libc::O_CREAT | libc::O_TRUNC) == 0 {
        return act() as c_int;
    }
    let made = outside(|layer| {
        // SAFETY: as the caller says.
        let file = unsafe { paths::at(directory, path) }.filter(|path| layer.watches(path))?;
        let exists = file.symlink_metadata().is_ok();
        if exists && flags & libc::O_TRUNC == 0 {
            return None;
        }
        let before = |journal: &mut Journal| {
            if exists {
                journal.changes(&file, 0, u64::MAX);
            }
            (!exists).then(|| Name::Made(file.clone()))
        };
        let after =
            |journal: &mut Journal, name: Option<Name>| name.into_iter().for_each(|name| journal.named(name));
        Some(step(layer, (call, &file), before, |_| act(), after))
    });
    made.unwrap_or_else(act) as c_int
}

/// # Safety
/// As open(2); `mode` is looked at where the flags say that there is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as the caller says.
    unsafe { open_as("open", libc::AT_FDCWD, path, flags, mode) }
}

/// # Safety
/// As open(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as the caller says.
    unsafe { open_as("open", libc::AT_FDCWD, path, flags, mode) }
}

/// # Safety
/// As openat(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat(directory: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as the caller says.
    unsafe { open_as("open", directory, path, flags, mode) }
}

/// # Safety
/// As openat(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn openat64(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mode: mode_t,
) -> c_int {
    // SAFETY: as the caller says.
    unsafe { open_as("open", directory, path, flags, mode) }
}

/// # Safety
/// As mkdirat(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdirat(directory: c_int, path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: as the caller says.
    let made = unsafe { paths::at(directory, path) };
    // SAFETY: the caller's own arguments.
    let act = || unsafe { libc::syscall(libc::SYS_mkdirat, directory, path, mode) };
    change_name(("mkdir", made), |_, path| Some(Name::MadeDirectory(path)), act)
}

/// # Safety
/// As mkdir(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mkdir(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: as the caller says.
    unsafe { mkdirat(libc::AT_FDCWD, path, mode) }
}

/// # Safety
/// As unlinkat(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlinkat(directory: c_int, path: *const c_char, flags: c_int) -> c_int {
    let is_directory = flags & libc::AT_REMOVEDIR != 0;
    // SAFETY: as the caller says.
    let gone = unsafe { paths::at(directory, path) };
    // SAFETY: the caller's own arguments.
    let act = || unsafe { libc::syscall(libc::SYS_unlinkat, directory, path, flags) };
    let before = |journal: &mut Journal, path: PathBuf| {
        if is_directory {
            Some(Name::RemovedDirectory(path))
        } else {
            journal.keep(&path).map(|stash| Name::Removed { path, stash })
        }
    };
    change_name((if is_directory { "rmdir" } else { "unlink" }, gone), before, act)
}

/// # Safety
/// As unlink(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    unsafe { unlinkat(libc::AT_FDCWD, path, 0) }
}

/// # Safety
/// As rmdir(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rmdir(path: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    unsafe { unlinkat(libc::AT_FDCWD, path, libc::AT_REMOVEDIR) }
}

/// # Safety
/// As renameat2(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn renameat2(
    from_directory: c_int,
    from: *const c_char,
    to_directory: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    // SAFETY: as the caller says.
    let (old, new) = unsafe { (paths::at(from_directory, from), paths::at(to_directory, to)) };
    // SAFETY: the caller's own arguments.
    let act = || unsafe { libc::syscall(libc::SYS_renameat2, from_directory, from, to_directory, to, flags) };
    let before = |journal: &mut Journal, to: PathBuf| {
        let replaced = if to.is_file() { journal.keep(&to) } else { None };
        old.map(|from| Name::Renamed { from, to, replaced })
    };
    change_name(("rename", new), before, act)
}

/// # Safety
/// As renameat(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn renameat(
    from_directory: c_int,
    from: *const c_char,
    to_directory: c_int,
    to: *const c_char,
) -> c_int {
    // SAFETY: as the caller says.
    unsafe { renameat2(from_directory, from, to_directory, to, 0) }
}

/// # Safety
/// As rename(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    unsafe { renameat2(libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) }
}

/// # Safety
/// As linkat(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn linkat(
    from_directory: c_int,
    from: *const c_char,
    to_directory: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    // SAFETY: as the caller says.
    let made = unsafe { paths::at(to_directory, to) };
    // SAFETY: the caller's own arguments.
    let act = || unsafe { libc::syscall(libc::SYS_linkat, from_directory, from, to_directory, to, flags) };
    change_name(("link", made), |_, path| Some(Name::Made(path)), act)
}

/// # Safety
/// As link(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn link(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    unsafe { linkat(libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) }
}

/// Before anything else of the program runs.
#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

/// The server's children are not to be watched.
extern "C" fn begin() {
    // SAFETY: there is one thread as yet.
    unsafe { std::env::remove_var("LD_PRELOAD") };
}
