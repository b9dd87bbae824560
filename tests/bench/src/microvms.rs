//! What a client does: launching, asking, suspending, terminating, and how long it waits for each.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::proc::kibibytes;
use e2e::{Server, census};

use crate::Failure;
use crate::api::{Api, Launched};
use crate::client::{Connection, Trust};
use crate::stats::Samples;

/// After a launch, for the server to make ready again what it keeps ready, as it has between two clients.
pub(crate) const REPLENISH: Duration = Duration::from_millis(1000);
/// Between any other two operations.
const REST: Duration = Duration::from_millis(300);
/// MicroVMs that are asked for at the same moment.
pub(crate) const AT_ONCE: usize = 20;
/// How often that is done again.
const BURSTS: usize = 5;
/// Between two such moments: as with [`REPLENISH`].
const REPLENISH_ALL: Duration = Duration::from_secs(15);

/// A MicroVM that has answered.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) launched: Launched,
    token: String,
}

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
    /// From the calls to the last of the first answers, the first time, which nobody could expect.
    pub(crate) first: Samples,
    /// The same after that.
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
        let microvm = self.launch_into(figures).await?;
        tokio::time::sleep(REPLENISH).await;
        figures.suspend.push(self.suspend(&microvm).await?);
        rest().await;
        figures.wake.push(self.ask(&microvm).await?);
        rest().await;
        figures.terminate.push(self.terminate(&microvm).await?);
        rest().await;
        Ok(())
    }

    /// Launches a MicroVM, to its first answer.
    pub(crate) async fn launch(&self) -> Result<(Serving, Duration), Failure> {
        let began = Instant::now();
        let microvm = self.launch_into(&mut Figures::default()).await?;
        Ok((microvm, began.elapsed()))
    }

    async fn launch_into(&self, figures: &mut Figures) -> Result<Serving, Failure> {
        let began = Instant::now();
        let launched = self.api.run(self.image).await?;
        let called = began.elapsed();
        let token = self.api.token(&launched.id).await?;
        let minted = began.elapsed();
        let microvm = Serving { launched, token };
        self.ask(&microvm).await?;
        let answered = began.elapsed();
        figures.launch.push(answered);
        let parts = [called, minted.saturating_sub(called), answered.saturating_sub(minted)];
        figures.parts.iter_mut().zip(parts).for_each(|(samples, part)| samples.push(part));
        Ok(microvm)
    }

    /// Launches [`AT_ONCE`] MicroVMs at the same moment, and [`BURSTS`] times again.
    pub(crate) async fn together(&self) -> Result<Together, Failure> {
        let mut together = Together::default();
        for burst in 0..=BURSTS {
            tokio::time::sleep(REPLENISH_ALL).await;
            let began = Instant::now();
            let launched = futures::future::try_join_all((0..AT_ONCE).map(|_| self.launch())).await?;
            let all = if burst == 0 { &mut together.first } else { &mut together.all };
            all.push(began.elapsed());
            for (microvm, took) in launched {
                if burst > 0 {
                    together.each.push(took);
                }
                self.terminate(&microvm).await?;
            }
        }
        Ok(together)
    }

    /// Asks over a new connection, as a client that comes for the first time; how long the 200 takes.
    pub(crate) async fn ask(&self, microvm: &Serving) -> Result<Duration, Failure> {
        let began = Instant::now();
        let endpoint = &microvm.launched.endpoint;
        let mut connection = Connection::open(&self.trust, endpoint, self.endpoints).await?;
        connection.get("/", Some(&microvm.token)).await?;
        Ok(began.elapsed())
    }

    /// Suspends a MicroVM; how long that takes.
    pub(crate) async fn suspend(&self, microvm: &Serving) -> Result<Duration, Failure> {
        self.api.suspend(&microvm.launched.id).await
    }

    /// Terminates a MicroVM; how long that takes.
    pub(crate) async fn terminate(&self, microvm: &Serving) -> Result<Duration, Failure> {
        self.api.terminate(&microvm.launched.id).await
    }

    /// The VMMs of all MicroVMs, without those of spare clones.
    pub(crate) fn vmms(&self) -> Vec<i32> {
        census::vmms_of(&self.server.data_dir().join("microvms"))
    }

    /// How long each VMM of a MicroVM has had a processor so far.
    pub(crate) fn processor_time(&self) -> Result<HashMap<i32, Duration>, Failure> {
        self.vmms().into_iter().map(|pid| Ok((pid, processor_time(pid)?))).collect()
    }

    /// What each VMM of a MicroVM costs.
    pub(crate) fn memory(&self) -> Result<Vec<Memory>, Failure> {
        let rollups = self.vmms().into_iter().map(|pid| format!("/proc/{pid}/smaps_rollup"));
        rollups.map(|path| parse(&std::fs::read_to_string(path)?)).collect()
    }
}

/// Lets the machine come to rest.
pub(crate) async fn rest() {
    tokio::time::sleep(REST).await;
}

/// Of all threads of a process that live.
fn processor_time(pid: i32) -> Result<Duration, Failure> {
    let mut nanos = 0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedule = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += schedule.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

fn parse(rollup: &str) -> Result<Memory, Failure> {
    let field = |name: &str| kibibytes(rollup, name).ok_or(format!("no {name} in smaps_rollup"));
    Ok(Memory { proportional: field("Pss")?, private_dirty: field("Private_Dirty")? })
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
