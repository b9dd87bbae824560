//! `rekindle domain`: host names of the operator's own.

use std::io::{self, Write};

use crate::cli::DomainCommand;
use crate::client::Client;
use crate::public::{ExposureError, target};

/// Adds, lists, removes.
pub(crate) async fn run(command: &DomainCommand) -> Result<(), ExposureError> {
    let whose = match command {
        DomainCommand::Add(args) => &args.whose,
        DomainCommand::List(whose) => whose,
        DomainCommand::Remove(args) => &args.whose,
    };
    let client = Client::of(&whose.data.data_dir, whose.account.as_deref())?;
    let mut out = io::stdout().lock();
    match command {
        DomainCommand::Add(args) => {
            let name = args.name.to_ascii_lowercase();
            let domain = client.put_domain(&name, &target(&client, &args.target)?).await?;
            let address = client.address_of(&domain.domain_name);
            writeln!(out, "https://{address}/ -> {}", domain.resource)?;
        }
        DomainCommand::List(_) => {
            for domain in client.domains().await? {
                writeln!(out, "{}\t{}", domain.domain_name, domain.resource)?;
            }
        }
        DomainCommand::Remove(args) => client.delete_domain(&args.name.to_ascii_lowercase()).await?,
    }
    Ok(())
}
