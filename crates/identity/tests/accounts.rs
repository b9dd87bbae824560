//! Accounts as they are made, with and without a server at work on the same store.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use auth::keys::AccessKey;
use common::World;
use ids::AccountId;
use rekindle_identity::accounts::{self, AccountError};
use rekindle_identity::{CredentialError, Identity};
use store::Store;

#[tokio::test]
async fn an_account_that_another_process_makes_is_known_at_once() {
    let world = World::new().await;
    let elsewhere = Store::open(&world.dir.path().join("db")).unwrap();
    let made = accounts::create(&elsewhere, Some("second")).await.unwrap();
    assert_eq!(world.identity.secret(&made.key.id), Some(made.key.secret.clone()));
    let root = world.caller(&made.key);
    assert_eq!(root.arn(), format!("arn:aws:iam::{}:root", made.record.id));
    let roles = world.iam(&root, "ListRoles").await.body;
    assert!(roles.contains("MicroVMBuildRole") && roles.contains("MicroVMExecutionRole"));

    // And it is a full account: its changes are kept.
    assert_eq!(world.iam(&root, "CreateUser UserName=ada").await.status, 200);
    let again = Identity::open(world.store.clone(), common::SECRET).unwrap();
    assert_eq!(common::iam(&again, &root, "GetUser UserName=ada").await.status, 200);
}

#[tokio::test]
async fn the_account_of_the_first_start_is_made_once_and_kept() {
    let world = World::new().await;
    let id: AccountId = "123456789012".parse().unwrap();
    let key = AccessKey::generate().unwrap();
    accounts::ensure(&world.store, &id, &key).await.unwrap();
    let identity = Identity::open(world.store.clone(), common::SECRET).unwrap();
    let root = identity.credential(&key.id, None).unwrap().caller;
    assert_eq!(root.account, id);
    let deleted = "DeleteRolePolicy RoleName=MicroVMBuildRole PolicyName=Build";
    assert_eq!(common::iam(&identity, &root, deleted).await.status, 200);
    accounts::ensure(&world.store, &id, &key).await.unwrap();
    let again = Identity::open(world.store.clone(), common::SECRET).unwrap();
    assert_eq!(
        common::iam(&again, &root, "ListRolePolicies RoleName=MicroVMBuildRole")
            .await
            .body
            .matches("<member>")
            .count(),
        0
    );

    // The settings may name another account for the same key.
    let other: AccountId = "210987654321".parse().unwrap();
    accounts::ensure(&world.store, &other, &key).await.unwrap();
    let moved = Identity::open(world.store.clone(), common::SECRET).unwrap();
    assert_eq!(moved.credential(&key.id, None).unwrap().caller.account, other);
    assert!(matches!(accounts::find(&world.store, &id.to_string()), Err(AccountError::NoRootKey(_))));
}

#[tokio::test]
async fn accounts_are_found_by_id_and_by_a_name_that_is_theirs_alone() {
    let world = World::new().await;
    let taken = accounts::create(&world.store, Some("first")).await;
    assert!(matches!(taken, Err(AccountError::NameTaken(_))));
    for bad in ["", "a b", "123456789012", &"x".repeat(51)] {
        assert!(
            matches!(accounts::create(&world.store, Some(bad)).await, Err(AccountError::BadName(_))),
            "{bad}"
        );
    }
    accounts::create(&world.store, None).await.unwrap();
    accounts::create(&world.store, None).await.unwrap();
    assert_eq!(accounts::list(&world.store).unwrap().len(), 3);
    assert_eq!(accounts::find(&world.store, "first").unwrap(), world.account);
    assert_eq!(accounts::find(&world.store, &world.id()).unwrap(), world.account);
    assert!(matches!(accounts::find(&world.store, "second"), Err(AccountError::Unknown(_))));
}

#[tokio::test]
async fn another_secret_makes_every_session_void() {
    let world = World::new().await;
    let issued = world.identity.issue(&world.root(), 900);
    let other = Identity::open(world.store.clone(), [8; 32]).unwrap();
    let opened = other.credential(&issued.access_key_id, Some(&issued.session_token));
    assert_eq!(opened.map(|_| ()).unwrap_err(), CredentialError::BadToken);
}
