//! What of its link's throughput a guest has through its slot: packets pass two translations, the rules of two namespaces
//! and a link between them. Held against the same guest whose tap ends where its bytes are taken.

use std::fs::File;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use e2e::{Neighbour, Server, command};
use network::Pool;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::Failure;
use crate::baseline::{Bare, Life, by_hand};
use crate::microvms::rest;
use crate::stats::Samples;
use crate::table::{Row, Table};

/// What is sent at once.
const MIB: u32 = 64;
const PORT: u16 = 7008;
/// The least that a guest may have of what it has without a slot.
const LEAST: f64 = 0.7;
/// Where a slot's end of the guest's link is.
const GATEWAYS: [&str; 2] = ["169.254.77.1", "fd72:656b:696e::a9fe:4d01"];
/// On networks of nobody's.
const NETWORK: &str = "198.51.105";
const NETWORK_V6: &str = "2e00:105:1:";

/// The table of `samples` times of each kind, of an image of the tests' own application.
pub(crate) async fn measure(server: &Server, image: &str, samples: usize) -> Result<Table, Failure> {
    let work = async |bare: &Bare, pool: &Pool| figures(bare, pool, samples).await;
    let figures = by_hand(server, image, 2, work).await?;
    let families = ["IPv4", "IPv6"];
    let row = |(family, [slot, tap]): (&str, &[Samples; 2])| {
        let limit = tap.median().map(|tap| tap.div_f64(LEAST)).unwrap_or_default();
        Row::of(&format!("{MIB} MiB out of a guest by {family}"), slot).limit(limit).against(tap)
    };
    Ok(Table { name: "network".into(), rows: families.into_iter().zip(&figures).map(row).collect() })
}

/// Of each family: through a slot, and with the tap alone.
async fn figures(bare: &Bare, pool: &Pool, samples: usize) -> Result<[[Samples; 2]; 2], Failure> {
    let (slot, tap) = (pool.acquire().await?, pool.acquire().await?);
    command::must(Command::new("ip").args(["netns", "exec", &tap.name, "nft", "flush", "ruleset"]));
    take_bytes(&tap.netns)?;
    let world = Neighbour::new("taker", NETWORK);
    let there = [world.address.clone(), world.by_ipv6(NETWORK_V6)];
    take_bytes(&world.namespace())?;
    let guests = [bare.launch("slot", &slot).await?, bare.launch("tap", &tap).await?];
    let mut figures: [[Samples; 2]; 2] = Default::default();
    for _ in 0..samples {
        for (family, [through, alone]) in figures.iter_mut().enumerate() {
            alone.push(send(&guests[1], GATEWAYS[family]).await?);
            through.push(send(&guests[0], &there[family]).await?);
        }
    }
    for guest in guests {
        guest.end().await?;
    }
    pool.release(slot);
    pool.release(tap);
    Ok(figures)
}

/// How long it takes until all has been taken.
async fn send(guest: &Life, to: &str) -> Result<std::time::Duration, Failure> {
    rest().await;
    let began = Instant::now();
    guest.get(&format!("/send?host={to}&port={PORT}&mib={MIB}")).await?;
    Ok(began.elapsed())
}

/// Takes whatever is sent to a namespace, for as long as this process lives.
fn take_bytes(namespace: &Path) -> io::Result<()> {
    let namespace = File::open(namespace)?;
    let listen = move || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        // Of IPv4 as well.
        TcpListener::bind(("::", PORT))
    };
    let listener = std::thread::spawn(listen).join().map_err(|_| io::Error::other("it panicked"))??;
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        for mut stream in listener.incoming().flatten() {
            while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
        }
    });
    Ok(())
}
