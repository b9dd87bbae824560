//! `rekindle public`: ports that need no token.

use std::io::{self, Write};

use ids::{MicrovmOrImage, ParseIdError};
use proxy::headers::DEFAULT_PORT;

use crate::cli;
use crate::client::{Client, ClientError};

/// Why nothing is public, and no name leads anywhere, that did not before.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExposureError {
    /// No server to ask, or it refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Nothing is called so.
    #[error("{0}; give the id of a MicroVM, or the name or ARN of an image")]
    Target(#[from] ParseIdError),
    /// Nowhere to print to.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Sets which ports are public, and prints them.
pub(crate) async fn run(args: &cli::Public) -> Result<(), ExposureError> {
    let client = Client::of(&args.whose.data.data_dir, args.whose.account.as_deref())?;
    let target = target(&client, &args.target)?;
    let access = match &args.ports[..] {
        _ if args.show => client.access(&target).await?,
        _ if args.off => client.publish(&target, &[]).await?,
        [] => client.publish(&target, &[DEFAULT_PORT]).await?,
        ports => client.publish(&target, ports).await?,
    };
    let ports: Vec<String> = access.public_ports.iter().map(ToString::to_string).collect();
    let told = match &ports[..] {
        [] => format!("{target}: every port needs a token"),
        ports => format!("{target}: anybody may send requests to {}", ports.join(", ")),
    };
    Ok(writeln!(io::stdout(), "{told}")?)
}

/// What an id, a name or an ARN names.
pub(crate) fn target(client: &Client, text: &str) -> Result<MicrovmOrImage, ParseIdError> {
    match text.parse() {
        Err(error) if text.contains(':') => Err(error),
        Err(_) => Ok(MicrovmOrImage::Image(client.image(text.parse()?))),
        found => found,
    }
}
