//! `rekindle open`: a link that lets a browser in to a MicroVM's application (`proxy::login`).

use std::io::{self, Write};
use std::process::{Command, Stdio};

use ids::MicrovmId;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proxy::headers::PROXY_AUTH;
use proxy::login;

use crate::cli;
use crate::client::{Client, ClientError};

/// What opens an address on a desktop.
const OPENER: &str = "xdg-open";

/// Why there is no link, or it is not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// No server to ask, or it refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Another answer than a token.
    #[error("the server gave no token for {0}; use the program that the server was started from")]
    Token(MicrovmId),
    /// No desktop.
    #[error(
        "cannot open the link with {OPENER}: {0}; open it yourself, in a browser that trusts the authority (`rekindle ca`)"
    )]
    Browser(io::Error),
    /// Nowhere to print to.
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Prints the link.
pub(crate) async fn run(args: &cli::Open) -> Result<(), OpenError> {
    let client = Client::of(&args.whose.data.data_dir, args.whose.account.as_deref())?;
    let endpoint = client.microvm(args.id).await?.endpoint;
    let token = client.auth_token(args.id, &[args.port], args.minutes).await?;
    let token = token.get(PROXY_AUTH).and_then(|token| token.to_str().ok());
    let link = link(&endpoint, token.ok_or(OpenError::Token(args.id))?, &args.path);
    writeln!(io::stdout(), "{link}")?;
    if args.browser {
        let quiet = || Stdio::null();
        let opened = Command::new(OPENER).arg(&link).stdin(quiet()).stdout(quiet()).stderr(quiet()).status();
        let status = opened.map_err(OpenError::Browser)?;
        if !status.success() {
            return Err(OpenError::Browser(io::Error::other(status.to_string())));
        }
    }
    Ok(())
}

/// The token stands where browsers send it nobody.
fn link(endpoint: &str, token: &str, path: &str) -> String {
    let page = format!("https://{endpoint}{}#{token}", login::PATH);
    match path {
        "/" => page,
        path => format!("{page}&next={}", utf8_percent_encode(path, NON_ALPHANUMERIC)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_its_token_behind_the_number_sign() {
        assert_eq!(link("h:8443", "a.b", "/"), "https://h:8443/.rekindle/login#a.b");
        assert_eq!(link("h", "a.b", "/x?y=1"), "https://h/.rekindle/login#a.b&next=%2Fx%3Fy%3D1");
    }
}
