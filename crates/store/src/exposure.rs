//! How MicroVMs are reached beyond their endpoint and its tokens: ports that are public, and names of the operator's own.
//! Both go with the MicroVM, or with the image, that they are of.

use std::collections::HashMap;
use std::sync::Arc;

use ids::{AccountId, ImageArn, MicrovmId, MicrovmOrImage};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::tx::doc;
use crate::{StoreError, Tx};

type Result<T> = std::result::Result<T, StoreError>;

/// Ports that anybody may send requests to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicPortsRecord {
    /// Of which MicroVM, or of all MicroVMs of which image that have no record of their own.
    pub subject: MicrovmOrImage,
    /// Which; none where a MicroVM is not to be public although its image is.
    pub ports: Vec<u16>,
}

/// A host name of the operator's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRecord {
    /// The name, in lower case.
    pub name: String,
    /// Whose it is.
    pub account: AccountId,
    /// Where it leads: to the MicroVM, or to the newest of the image.
    pub subject: MicrovmOrImage,
    /// When it was given, in milliseconds since the epoch.
    pub created_at: u64,
}

/// All of it, as requests ask for it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Exposure {
    public: HashMap<MicrovmOrImage, Arc<[u16]>>,
    domains: HashMap<String, MicrovmOrImage>,
}

impl Exposure {
    /// Public ports of a MicroVM: its own record counts before its image's.
    #[must_use]
    pub fn public_ports(&self, id: MicrovmId, image: &ImageArn) -> Arc<[u16]> {
        if self.public.is_empty() {
            return Arc::default();
        }
        let own = self.public.get(&MicrovmOrImage::Microvm(id));
        let found = own.or_else(|| self.public.get(&MicrovmOrImage::Image(image.clone())));
        found.map(Arc::clone).unwrap_or_default()
    }

    /// Every name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.domains.keys().map(String::as_str)
    }

    /// Where a name leads, in lower case.
    #[must_use]
    pub fn domain(&self, name: &str) -> Option<&MicrovmOrImage> {
        self.domains.get(name)
    }
}

impl Tx<'_> {
    /// The public ports of a MicroVM or image itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn public_ports(&self, subject: &MicrovmOrImage) -> Result<Option<PublicPortsRecord>> {
        const SQL: &str = "SELECT doc FROM public_ports WHERE subject = ?1";
        self.one("public ports", SQL, [subject.to_string()])
    }

    /// Writes public ports.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_public_ports(&self, record: &PublicPortsRecord) -> Result<()> {
        self.expose();
        self.run(
            "INSERT OR REPLACE INTO public_ports (subject, doc) VALUES (?1, ?2)",
            params![record.subject.to_string(), doc("public ports", record)?],
        )
    }

    /// Removes them.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_public_ports(&self, subject: &MicrovmOrImage) -> Result<()> {
        self.expose();
        self.run("DELETE FROM public_ports WHERE subject = ?1", [subject.to_string()])
    }

    /// The domain of this name, whosever it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn domain(&self, name: &str) -> Result<Option<DomainRecord>> {
        self.one("domain", "SELECT doc FROM domains WHERE name = ?1", [name])
    }

    /// Up to `limit` domains of `account` whose name comes after `after`, in the order of their names.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn domains(&self, account: &AccountId, after: &str, limit: usize) -> Result<Vec<DomainRecord>> {
        const SQL: &str = "SELECT doc FROM domains WHERE account = ?1 AND name > ?2 ORDER BY name LIMIT ?3";
        self.many("domain", SQL, params![account.to_string(), after, limit])
    }

    /// How many domains `account` has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_domains(&self, account: &AccountId) -> Result<usize> {
        self.count("SELECT count(*) FROM domains WHERE account = ?1", [account.to_string()])
    }

    /// Writes a domain.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_domain(&self, domain: &DomainRecord) -> Result<()> {
        self.expose();
        self.run(
            "INSERT OR REPLACE INTO domains (name, account, subject, doc) VALUES (?1, ?2, ?3, ?4)",
            params![
                domain.name,
                domain.account.to_string(),
                domain.subject.to_string(),
                doc("domain", domain)?
            ],
        )
    }

    /// Removes a domain.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_domain(&self, name: &str) -> Result<()> {
        self.expose();
        self.run("DELETE FROM domains WHERE name = ?1", [name])
    }

    /// What is gone is not reached any more, nor what comes to have its name.
    pub(crate) fn end_exposure(&self, subject: &MicrovmOrImage) -> Result<()> {
        let subject = subject.to_string();
        for sql in ["DELETE FROM public_ports WHERE subject = ?1", "DELETE FROM domains WHERE subject = ?1"] {
            if self.connection.prepare_cached(sql)?.execute([&subject])? > 0 {
                self.expose();
            }
        }
        Ok(())
    }

    pub(crate) fn exposure(&self) -> Result<Exposure> {
        let public: Vec<PublicPortsRecord> = self.many("public ports", "SELECT doc FROM public_ports", [])?;
        let domains: Vec<DomainRecord> = self.many("domain", "SELECT doc FROM domains", [])?;
        Ok(Exposure {
            public: public.into_iter().map(|record| (record.subject, record.ports.into())).collect(),
            domains: domains.into_iter().map(|record| (record.name, record.subject)).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;
    use crate::tests::microvm;

    fn open() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        (dir, store)
    }

    fn domain(name: &str, account: &AccountId, subject: MicrovmOrImage) -> DomainRecord {
        DomainRecord { name: name.into(), account: account.clone(), subject, created_at: 1 }
    }

    #[tokio::test]
    async fn what_is_exposed_is_seen_at_once_and_goes_with_its_microvm() {
        let (_dir, store) = open();
        let mut vm = microvm();
        let (id, image) = (vm.id, vm.image.clone());
        let ports = |store: &Store| store.exposure().unwrap().public_ports(id, &image).to_vec();
        let known = |store: &Store| store.exposure().unwrap().domain("a.test").cloned();
        assert_eq!((ports(&store), known(&store)), (vec![], None));

        let of = MicrovmOrImage::Image(vm.image.clone());
        let record = PublicPortsRecord { subject: of.clone(), ports: vec![80] };
        store.write(move |tx| tx.put_public_ports(&record)).await.unwrap();
        assert_eq!(ports(&store), [80]);
        let own = MicrovmOrImage::Microvm(id);
        let (record, led) = (PublicPortsRecord { subject: own.clone(), ports: vec![] }, own.clone());
        let name = domain("a.test", &vm.account, led);
        let write = move |tx: &Tx<'_>| tx.put_public_ports(&record).and_then(|()| tx.put_domain(&name));
        store.write(write).await.unwrap();
        assert_eq!((ports(&store), known(&store)), (vec![], Some(own.clone())), "its own comes first");

        vm.life.terminated_at = Some(7);
        store.write(move |tx| tx.put_microvm(&vm)).await.unwrap();
        assert_eq!((ports(&store), known(&store)), (vec![80], None));
        assert_eq!(store.read(|tx| tx.public_ports(&own)).unwrap(), None);
        let arn = image.clone();
        store.write(move |tx| tx.delete_image(&arn)).await.unwrap();
        assert_eq!(ports(&store), [] as [u16; 0], "nothing is left for another image of its name");
    }

    #[tokio::test]
    async fn a_change_that_fails_exposes_nothing() {
        let (_dir, store) = open();
        let vm = microvm();
        store.exposure().unwrap();
        let name = domain("a.test", &vm.account, MicrovmOrImage::Microvm(vm.id));
        let failed = store.write(move |tx| tx.put_domain(&name).and(Err::<(), _>(StoreError::Stopped)));
        assert!(failed.await.is_err());
        assert_eq!(*store.exposure().unwrap(), Exposure::default());
    }

    #[tokio::test]
    async fn domains_are_listed_by_account_in_the_order_of_their_names() {
        let (_dir, store) = open();
        let vm = microvm();
        let other: AccountId = "210987654321".parse().unwrap();
        let all = ["b.test", "a.test", "c.test"]
            .map(|name| domain(name, &vm.account, MicrovmOrImage::Microvm(vm.id)));
        let foreign = domain("d.test", &other, MicrovmOrImage::Image(vm.image.clone()));
        let written: Vec<_> = all.iter().cloned().chain([foreign]).collect();
        store.write(move |tx| written.iter().try_for_each(|domain| tx.put_domain(domain))).await.unwrap();
        let names = |after: &str| {
            let found = store.read(|tx| tx.domains(&vm.account, after, 2)).unwrap();
            found.into_iter().map(|domain| domain.name).collect::<Vec<_>>()
        };
        assert_eq!(
            (names(""), names("b.test")),
            (vec!["a.test".into(), "b.test".into()], vec!["c.test".into()])
        );
        assert_eq!(store.read(|tx| tx.count_domains(&vm.account)).unwrap(), 3);
        store.write(|tx| tx.delete_domain("b.test")).await.unwrap();
        assert_eq!(store.read(|tx| tx.domain("b.test")).unwrap(), None);
    }
}
