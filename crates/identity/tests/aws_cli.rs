//! The AWS CLI against IAM and STS over a loopback listener. Needs the clients that `scripts/clients` installs.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::convert::Infallible;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use auth::keys::AccessKey;
use auth::sigv4::{self, Payload, SigV4Error};
use bytes::Bytes;
use common::World;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rekindle_identity::{Identity, QueryAnswer, Service, parse_form, refuse};
use tokio::net::TcpListener;

async fn answer(identity: &Identity, request: Request<Incoming>) -> QueryAnswer {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let request = sigv4::Request::of(&parts);
    let claim = sigv4::parse(&request).unwrap();
    let service = Service::from_signing_name(&claim.service).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let verified = || {
        let credential = identity.credential(&claim.access_key, claim.session_token.as_deref())?;
        sigv4::verify(&request, &claim, Payload::of(&body), &credential.secret, now)?;
        Ok::<_, SigV4Error>(credential.caller)
    };
    match verified() {
        Ok(caller) => identity.query(&caller, service, &parse_form(&body).unwrap()).await,
        Err(error) => refuse(service, &error),
    }
}

async fn serve(identity: Identity) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let identity = identity.clone();
            let service = service_fn(move |request| {
                let identity = identity.clone();
                async move {
                    let QueryAnswer { status, body, request_id, .. } = answer(&identity, request).await;
                    let response = Response::builder().status(status).header("x-amzn-requestid", request_id);
                    Ok::<_, Infallible>(response.body(Full::new(Bytes::from(body))).unwrap())
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    url
}

struct Aws<'a> {
    url: &'a str,
    dir: &'a Path,
    key: AccessKey,
    token: Option<String>,
}

impl Aws<'_> {
    async fn output(&self, arguments: &str) -> Output {
        let assets = std::env::var_os("REKINDLE_ASSETS").unwrap_or_else(|| "/var/lib/rekindle/assets".into());
        let mut command = Command::new(Path::new(&assets).join("clients/bin/aws"));
        command
            .args(arguments.split(' '))
            .args(["--output", "text"])
            .current_dir(self.dir)
            .env("AWS_ENDPOINT_URL", self.url)
            .env("AWS_ACCESS_KEY_ID", &self.key.id)
            .env("AWS_SECRET_ACCESS_KEY", &self.key.secret)
            .env("AWS_DEFAULT_REGION", "eu-central-1")
            .env("NO_PROXY", "127.0.0.1");
        if let Some(token) = &self.token {
            command.env("AWS_SESSION_TOKEN", token);
        }
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn run(&self, arguments: &str) -> String {
        let output = self.output(arguments).await;
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    async fn fails(&self, arguments: &str) -> String {
        let output = self.output(arguments).await;
        assert!(!output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_aws_cli_manages_users_and_roles_and_takes_roles_on() {
    let world = World::new().await;
    let (url, dir, account) = (serve(world.identity.clone()).await, world.dir.path(), world.id());
    let aws = |key: &AccessKey, token| Aws { url: &url, dir, key: key.clone(), token };
    let root = aws(&world.account.key, None);
    assert_eq!(root.run("sts get-caller-identity --query Arn").await, format!("arn:aws:iam::{account}:root"));
    assert!(root.run("iam list-roles --query Roles[].RoleName").await.contains("MicroVMBuildRole"));

    // A user, what it may do, and its key.
    let user = root
        .run("iam create-user --user-name ada --path /dev/ --tags Key=team,Value=R+D --query User.Arn")
        .await;
    assert_eq!(user, format!("arn:aws:iam::{account}:user/dev/ada"));
    let own = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:ListUserTags",
        "Resource": "arn:aws:iam::*:user/dev/${aws:username}"}]}"#;
    std::fs::write(dir.join("own.json"), own).unwrap();
    root.run("iam put-user-policy --user-name ada --policy-name own --policy-document file://own.json").await;
    assert_eq!(
        root.run(
            "iam get-user-policy --user-name ada --policy-name own --query PolicyDocument.Statement[0].Action"
        )
        .await,
        "iam:ListUserTags"
    );
    let created = root
        .run("iam create-access-key --user-name ada --query AccessKey.[AccessKeyId,SecretAccessKey]")
        .await;
    let (id, secret) = created.split_once('\t').unwrap();
    let ada = AccessKey { id: id.into(), secret: secret.into() };
    let as_ada = aws(&ada, None);
    assert_eq!(as_ada.run("sts get-caller-identity --query Arn").await, user);
    assert_eq!(as_ada.run("iam list-user-tags --user-name ada --query Tags[0].Value").await, "R+D");
    let denied = as_ada.fails("iam delete-user --user-name ada").await;
    assert!(
        denied.contains(&format!(
            "(AccessDenied) when calling the DeleteUser operation: User: {user} is not authorized to perform: \
             iam:DeleteUser on resource: {user} because no identity-based policy allows the iam:DeleteUser action"
        )),
        "{denied}"
    );

    // A managed policy, a role that the user may take on, and what it may do then.
    let read = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "iam:Get*", "Resource": "*"}]}"#;
    std::fs::write(dir.join("read.json"), read).unwrap();
    let policy = root
        .run("iam create-policy --policy-name read --policy-document file://read.json --query Policy.Arn")
        .await;
    std::fs::write(dir.join("trust.json"), common::trust(&format!(r#"{{"AWS":"{user}"}}"#))).unwrap();
    let role = root
        .run("iam create-role --role-name reader --assume-role-policy-document file://trust.json --query Role.Arn")
        .await;
    root.run(&format!("iam attach-role-policy --role-name reader --policy-arn {policy}")).await;
    assert_eq!(
        root.run(&format!(
            "iam list-entities-for-policy --policy-arn {policy} --query PolicyRoles[].RoleName"
        ))
        .await,
        "reader"
    );
    root.run("iam update-role --role-name reader --description A&B<C> --max-session-duration 7200").await;
    assert_eq!(root.run("iam get-role --role-name reader --query Role.Description").await, "A&B<C>");
    let session = as_ada
        .run(&format!(
            "sts assume-role --role-arn {role} --role-session-name s1 --duration-seconds 7200 \
             --query Credentials.[AccessKeyId,SecretAccessKey,SessionToken]"
        ))
        .await;
    let [id, secret, token] = session.split('\t').collect::<Vec<_>>()[..] else { panic!("{session}") };
    let key = AccessKey { id: id.into(), secret: secret.into() };
    let as_reader = aws(&key, Some(token.into()));
    let arn = format!("arn:aws:sts::{account}:assumed-role/reader/s1");
    assert_eq!(as_reader.run("sts get-caller-identity --query Arn").await, arn);
    assert_eq!(
        as_reader.run("iam get-role --role-name reader --query Role.MaxSessionDuration").await,
        "7200"
    );
    assert!(as_reader.fails("iam list-users").await.contains(&format!("User: {arn} is not authorized")));
    let without_token = aws(&key, None).fails("sts get-caller-identity").await;
    assert!(without_token.contains("InvalidClientTokenId"), "{without_token}");

    // Pages, waiters, and everything gone again.
    for name in ["bob", "cyd"] {
        root.run(&format!("iam create-user --user-name {name}")).await;
    }
    assert_eq!(root.run("iam list-users --page-size 1 --query Users[].UserName").await, "ada\nbob\ncyd");
    root.run("iam wait user-exists --user-name bob").await;
    assert!(
        root.run("iam list-policies --scope Local --only-attached --query Policies[].PolicyName").await
            == "read"
    );
    assert!(root.fails(&format!("iam delete-policy --policy-arn {policy}")).await.contains("DeleteConflict"));
    root.run(&format!("iam detach-role-policy --role-name reader --policy-arn {policy}")).await;
    root.run(&format!("iam delete-policy --policy-arn {policy}")).await;
    root.run("iam delete-role --role-name reader").await;
    assert!(as_reader.fails("sts get-caller-identity").await.contains("InvalidClientTokenId"));
    root.run(&format!("iam update-access-key --user-name ada --access-key-id {} --status Inactive", ada.id))
        .await;
    assert!(as_ada.fails("sts get-caller-identity").await.contains("InvalidClientTokenId"));
    let wrong = AccessKey { id: world.account.key.id.clone(), secret: "wrong".into() };
    assert!(aws(&wrong, None).fails("iam list-users").await.contains("SignatureDoesNotMatch"));
}
