//! From one life of a snapshot to the next.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use agent_proto::{ENTROPY_BYTES, NewLife};
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::error::{Error, trying};
use crate::sockets;

const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
const NANOSECONDS: u64 = 1_000_000_000;

/// `struct rand_pool_info` with room for one life's entropy.
#[repr(C)]
struct RandPoolInfo {
    entropy_bits: libc::c_int,
    size: libc::c_int,
    bytes: [u8; ENTROPY_BYTES],
}

/// Leaves nothing that a snapshot need not or must not carry. Connections are reset here, where their peers still hear
/// of it, and where no caller waits for the next life.
pub(crate) fn quiesce() -> Result<(), Error> {
    sockets::abort_remote()?;
    rustix::fs::sync();
    Ok(())
}

/// Gives a restored guest its own clock and randomness.
pub(crate) fn begin(new: &NewLife, random: &Random) -> Result<(), Error> {
    set_clock(new.wall_clock)?;
    random.reseed(&new.entropy)
}

fn set_clock(nanoseconds: u64) -> Result<(), Error> {
    let time = Timespec {
        tv_sec: i64::try_from(nanoseconds / NANOSECONDS).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(nanoseconds % NANOSECONDS).unwrap_or_default(),
    };
    clock_settime(ClockId::Realtime, time).map_err(trying("setting the clock"))
}

/// The kernel's source of random bytes, kept open like everything that a new life begins with.
pub(crate) struct Random(File);

impl Random {
    pub(crate) fn open() -> Result<Self, Error> {
        let device = File::options().write(true).open("/dev/urandom");
        device.map(Self).map_err(trying("opening /dev/urandom"))
    }

    fn reseed(&self, entropy: &[u8]) -> Result<(), Error> {
        let bytes = entropy.try_into().map_err(|_| {
            Error::new("reseeding", format!("expected {ENTROPY_BYTES} bytes, not {}", entropy.len()))
        })?;
        let pool = RandPoolInfo {
            entropy_bits: ENTROPY_BYTES as libc::c_int * 8,
            size: ENTROPY_BYTES as libc::c_int,
            bytes,
        };
        // SAFETY: the device is open and `pool` is the structure that this request reads.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), RNDADDENTROPY as _, &raw const pool) })
            .map_err(trying("adding entropy"))?;
        // SAFETY: the device is open and this request takes no argument.
        check(unsafe { libc::ioctl(self.0.as_raw_fd(), RNDRESEEDCRNG as _) }).map_err(trying("reseeding"))
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
