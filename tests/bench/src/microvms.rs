//! What a client waits for: launching, waking, suspending, terminating; and what a clone costs its host.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::Server;

use crate::Failure;
use crate::api::{Api, Launched};
use crate::client::{Connection, Trust};
use crate::stats::Samples;

/// After a launch, for the server to make ready again what it keeps ready, as it has between two clients.
const REPLENISH: Duration = Duration::from_millis(1000);
/// Between any other two operations.
const REST: Duration = Duration::from_millis(300);
/// MicroVMs that are asked for at the same moment.
pub(crate) const AT_ONCE: usize = 20;
/// How often that is done.
const BURSTS: usize = 5;
/// Clones that are alive at once when their memory is looked at.
pub(crate) const CLONES: usize = 10;

/// Figures of one MicroVM after the other.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// From the RunMicrovm call to the first answer.
    pub(crate) launch: Samples,
    /// Its parts: the call, the token, connection and request.
    pub(crate) parts: [Samples; 3],
    pub(crate) suspend: Samples,
    pub(crate) wake: Samples,
    pub(crate) terminate: Samples,
}

/// Figures of [`AT_ONCE`] launches at the same moment.
#[derive(Debug, Default)]
pub(crate) struct Together {
    /// From the calls to the last of the first answers.
    pub(crate) all: Samples,
    /// From a call to its first answer.
    pub(crate) each: Samples,
}

/// The memory of one clone's VMM, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) proportional: u64,
    pub(crate) private_dirty: u64,
}

/// A server with an image, and the way to its endpoints.
pub(crate) struct Bench<'a> {
    server: &'a Server,
    image: &'a str,
    api: Api,
    trust: Trust,
    endpoints: SocketAddr,
}

impl<'a> Bench<'a> {
    pub(crate) fn new(server: &'a Server, image: &'a str) -> Result<Self, Failure> {
        let trust = Trust::bundle(Path::new(server.variable("SSL_CERT_FILE")))?;
        let endpoints = SocketAddr::from(([127, 0, 0, 1], server.endpoint_port()));
        Ok(Self { server, image, api: Api::new(server), trust, endpoints })
    }

    /// Launches, suspends, wakes and terminates so many MicroVMs.
    pub(crate) async fn cycles(&self, samples: usize) -> Result<Figures, Failure> {
        // The first one pays for what is made once: verifying the snapshot, filling caches.
        self.cycle(&mut Figures::default()).await?;
        let mut figures = Figures::default();
        for _ in 0..samples {
            self.cycle(&mut figures).await?;
        }
        Ok(figures)
    }

    async fn cycle(&self, figures: &mut Figures) -> Result<(), Failure> {
        let (microvm, token) = self.launch(figures).await?;
        tokio::time::sleep(REPLENISH).await;
        figures.suspend.push(self.api.suspend(&microvm.id).await?);
        rest().await;
        let began = Instant::now();
        self.request(&microvm, &token).await?;
        figures.wake.push(began.elapsed());
        rest().await;
        figures.terminate.push(self.api.terminate(&microvm.id).await?);
        rest().await;
        Ok(())
    }

    async fn launch(&self, figures: &mut Figures) -> Result<(Launched, String), Failure> {
        let began = Instant::now();
        let microvm = self.api.run(self.image).await?;
        let called = began.elapsed();
        let token = self.api.token(&microvm.id).await?;
        let minted = began.elapsed();
        self.request(&microvm, &token).await?;
        let answered = began.elapsed();
        figures.launch.push(answered);
        let parts = [called, minted.saturating_sub(called), answered.saturating_sub(minted)];
        figures.parts.iter_mut().zip(parts).for_each(|(samples, part)| samples.push(part));
        Ok((microvm, token))
    }

    /// Launches [`AT_ONCE`] MicroVMs at the same moment, [`BURSTS`] times.
    pub(crate) async fn together(&self) -> Result<Together, Failure> {
        let mut together = Together::default();
        for _ in 0..BURSTS {
            tokio::time::sleep(REPLENISH * 3).await;
            let began = Instant::now();
            let launches = (0..AT_ONCE).map(async |_| {
                let (microvm, _) = self.launch(&mut Figures::default()).await?;
                Ok::<_, Failure>((microvm, began.elapsed()))
            });
            let launched = futures::future::try_join_all(launches).await?;
            together.all.push(began.elapsed());
            for (microvm, took) in launched {
                together.each.push(took);
                self.api.terminate(&microvm.id).await?;
            }
        }
        Ok(together)
    }

    /// Over a new connection, as of a client that comes for the first time.
    async fn request(&self, microvm: &Launched, token: &str) -> Result<(), Failure> {
        let mut connection = Connection::open(&self.trust, &microvm.endpoint, self.endpoints).await?;
        connection.get("/", Some(token)).await.map(drop)
    }

    /// The memory of each of [`CLONES`] clones that have answered one request and are idle.
    pub(crate) async fn memory(&self) -> Result<Vec<Memory>, Failure> {
        let mut clones = Vec::new();
        for _ in 0..CLONES {
            clones.push(self.launch(&mut Figures::default()).await?.0);
        }
        rest().await;
        let looks = clones.iter().map(|clone| {
            let pids = self.server.vmms(&clone.id);
            let [pid] = pids[..] else { return Err(format!("{} has VMMs {pids:?}", clone.id).into()) };
            parse(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?)
        });
        let memory: Result<Vec<Memory>, Failure> = looks.collect();
        for clone in &clones {
            self.api.terminate(&clone.id).await?;
        }
        memory
    }
}

/// Lets the machine come to rest.
pub(crate) async fn rest() {
    tokio::time::sleep(REST).await;
}

fn parse(rollup: &str) -> Result<Memory, Failure> {
    let field = |name: &str| {
        let value = rollup.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB"));
        let kib: u64 = value.ok_or_else(|| format!("no {name} in smaps_rollup"))?.trim().parse()?;
        Ok::<_, Failure>(kib * 1024)
    };
    Ok(Memory { proportional: field("Pss:")?, private_dirty: field("Private_Dirty:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rollup_is_in_kibibytes() {
        let memory =
            parse("00-ff ---p 0 00:00 0 [rollup]\nPss:   3 kB\nPss_Dirty: 7 kB\nPrivate_Dirty:  2 kB\n");
        let memory = memory.unwrap();
        assert_eq!((memory.proportional, memory.private_dirty), (3072, 2048));
        assert!(parse("nothing").is_err());
    }
}
