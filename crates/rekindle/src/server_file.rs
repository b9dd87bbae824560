//! What a running server tells of itself, to `rekindle doctor` and to commands that are its clients: where it really listens,
//! as whom, and what runs its MicroVMs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ids::AccountId;
use serde::{Deserialize, Serialize};

use crate::data_dir::{DataDir, DataDirError};
use crate::engines::Chosen;
use crate::files::{self, FileError, PUBLIC};

/// The file's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerFile {
    /// Where the control API listens.
    pub(crate) listen: SocketAddr,
    /// Where the endpoints listen.
    pub(crate) endpoint_listen: SocketAddr,
    /// Which region it is.
    pub(crate) region: String,
    /// The access key's account.
    pub(crate) account_id: AccountId,
    /// What runs the MicroVMs.
    pub(crate) machines_by: Chosen,
}

impl ServerFile {
    /// Tells it; for a server whose listeners are bound.
    pub(crate) fn write(&self, data: &DataDir) -> Result<(), FileError> {
        files::write_json(&data.server_file(), self, PUBLIC)
    }

    /// What the server tells; `None` where none runs.
    pub(crate) fn read(data: &DataDir) -> Result<Option<Self>, DataDirError> {
        let path = data.server_file();
        let Some(content) = files::read(&path)? else { return Ok(None) };
        serde_json::from_slice(&content).map(Some).map_err(|error| DataDirError::Damaged {
            path,
            reason: error.to_string(),
            loss: "nothing, the server writes a new one",
        })
    }

    /// Says that none runs.
    pub(crate) fn remove(data: &DataDir) -> Result<(), FileError> {
        files::remove(&data.server_file())
    }

    /// Where a client on this host reaches the control API.
    pub(crate) fn control(&self) -> SocketAddr {
        reachable(self.listen)
    }

    /// Where a client on this host reaches the endpoints.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        reachable(self.endpoint_listen)
    }
}

/// Where a listener of every address is reached.
fn reachable(listener: SocketAddr) -> SocketAddr {
    let ip = match listener.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_file_is_read_as_written_until_it_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let data = DataDir::find(root.path()).unwrap();
        assert_eq!(ServerFile::read(&data).unwrap(), None);
        let file = ServerFile {
            listen: "0.0.0.0:80".parse().unwrap(),
            endpoint_listen: "[::]:443".parse().unwrap(),
            region: "us-east-1".into(),
            account_id: "123456789012".parse().unwrap(),
            machines_by: Chosen::for_tests(),
        };
        file.write(&data).unwrap();
        assert_eq!(ServerFile::read(&data).unwrap(), Some(file.clone()));
        assert_eq!(file.control(), "127.0.0.1:80".parse().unwrap());
        assert_eq!(file.endpoint(), "[::1]:443".parse().unwrap());
        ServerFile::remove(&data).unwrap();
        assert_eq!(ServerFile::read(&data).unwrap(), None);
    }
}
