//! `rekindle serve`: opens what the server is made of, answers until it is told to stop, and closes in order.

use std::io;
use std::sync::Arc;

use control::{Audit, Control, Front, Throttle};
use proxy::ca::{CaError, LocalCa};
use proxy::{EndpointHosts, Proxy, tls_config};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::acme::Acme;
use crate::certificates::{CertificateError, Certificates, Shown};
use crate::cli;
use crate::config::{Config, ConfigError};
use crate::data_dir::{Account, DataDir, DataDirError};
use crate::files::FileError;
use crate::interface_endpoint;
use crate::listen::{ListenError, Listeners};
use crate::s3_access::S3Access;
use crate::server_file::ServerFile;
use crate::services::{Endpoints, Services, ServicesError};
use crate::stop::Stop;
use crate::token_keys::TokenKeys;
use crate::trust;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Data(#[from] DataDirError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Services(#[from] ServicesError),
    #[error("cannot open the audit log: {0}; make room, or give the data directory to this user")]
    Audit(io::Error),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

/// Serves until SIGTERM or SIGINT; SIGHUP has the endpoints' certificate read again.
pub(crate) async fn run(args: &cli::Serve) -> Result<(), ServeError> {
    let mut stop = Stop::listen().map_err(ServeError::Signals)?;
    let hang_up = signal(SignalKind::hangup()).map_err(ServeError::Signals)?;
    let mut config = Config::load(args.config.as_deref(), &args.aliases)?;
    config.prefer(&args.machines);
    // Held to the end: dropping it lets another server in.
    let (data, _lock) = DataDir::claim(&args.data.data_dir)?;
    ServerFile::remove(&data)?;
    let account = account(&data, &config)?;
    let ca = LocalCa::open(&data.ca())?;
    trust::write(&data.trust(), ca.bundle_pem())?;
    raise_open_files();

    let listeners = Listeners::bind(&args.addresses).await?;
    let (api, endpoints) = (listeners.control.address, listeners.endpoints.address);
    let hosts = EndpointHosts::new(&config.region, &config.domain);
    let certificates = Arc::new(Certificates::open(
        ca,
        hosts.clone(),
        config.endpoint_certificate.clone(),
        config.domain_certificates.clone(),
    )?);
    let token_keys = TokenKeys::open(&data)?;
    let tokens = token_keys.keyring();
    let reached = Endpoints { hosts, port: endpoints.port(), tokens };
    let (inside, interface_endpoints) = mpsc::unbounded_channel();
    let inside = config.interface_endpoint.then_some(inside);
    let services = Services::start(&config, &data, &account, &reached, inside.as_ref()).await?;
    let s3_access = Arc::new(S3Access(services.identity.clone()));
    let s3 = services.objects.service(&config.region, s3_access);
    let audit = Audit::to_dir(&data.audit(), &config.region).map_err(ServeError::Audit)?;
    let throttle = Throttle::new(config.rates());
    let identity = services.identity.clone();
    let front = Front { region: config.region.clone(), identity, throttle, audit };
    let control =
        Control::new(services.api.clone(), front).with_logs(services.logs.clone()).with_fallback(s3);
    let tls = tls_config(Arc::new(Shown::new(certificates.clone(), services.endpoints.clone())))?;
    let acme = config
        .acme
        .clone()
        .map(|settings| Acme::open(settings, &data, Arc::clone(&certificates), services.store.clone()));
    let acme = acme.transpose()?;
    let proxy = Proxy::new(services.endpoints.clone(), reached.hosts, reached.tokens);

    let server = ServerFile {
        listen: api,
        endpoint_listen: endpoints,
        region: config.region.clone(),
        account_id: account.id.clone(),
        machines_by: services.machines_by.clone(),
    };
    server.write(&data)?;
    tracing::info!(data = %data.path().display(), %api, %endpoints, "serving");
    let stopping = CancellationToken::new();
    tokio::join!(
        control::server::serve(
            listeners.control.listener,
            |peer| control.for_peer(peer),
            stopping.cancelled()
        ),
        interface_endpoint::serve(interface_endpoints, &control, stopping.clone()),
        proxy.serve(listeners.endpoints.listener, tls, stopping.clone()),
        token_keys.keep(stopping.clone()),
        certificates.keep(hang_up, stopping.clone()),
        async {
            if let Some(acme) = acme {
                acme.keep(stopping.clone()).await;
            }
        },
        async {
            tracing::info!(
                signal = stop.next().await,
                "stopping; MicroVMs go on, and the next start takes them up"
            );
            stopping.cancel();
        },
    );
    ServerFile::remove(&data)?;
    services.close().await?;
    tracing::info!("stopped");
    Ok(())
}

/// The account of the access key: the one made at first start, unless the settings name another.
fn account(data: &DataDir, config: &Config) -> Result<Account, DataDirError> {
    let made = data.open_account()?;
    let id = config.account.clone().unwrap_or(made.id);
    Ok(Account { id, key: made.key })
}

/// Every connection is an open file, and shells allow few unless asked for more.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!("cannot raise the limit on open files: {error}");
    }
}
