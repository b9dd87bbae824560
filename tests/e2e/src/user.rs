//! Somebody who uses a server with keys of their own: another account, a user of an account, or a role's session.

use std::process::Command;

use crate::command::{self, Environment};
use crate::{Answer, Json, Server, http, json};

/// Keys, and the server that they are for.
#[derive(Debug)]
pub struct User<'a> {
    server: &'a Server,
    environment: Environment,
}

impl<'a> User<'a> {
    /// Root of the first account.
    #[must_use]
    pub fn root(server: &'a Server) -> Self {
        Self { server, environment: server.client_environment() }
    }

    /// Root of a new account of this name.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn of_new_account(server: &'a Server, name: &str) -> Self {
        let rekindle = |arguments: &[&str]| {
            let mut command = Command::new(command::rekindle());
            command::must(command.args(arguments).arg("--data-dir").arg(server.data_dir()))
        };
        rekindle(&["account", "create", "--name", name]);
        let mut environment = server.client_environment();
        environment.extend(command::parse_exports(&rekindle(&["env", "--account", name])));
        Self { server, environment }
    }

    /// A new user of this one's account, with a policy of these statements; made by `aws iam`.
    ///
    /// # Panics
    /// Where they cannot be made.
    #[must_use]
    pub fn new_user(&self, name: &str, statements: &Json) -> Self {
        self.aws(&["iam", "create-user", "--user-name", name]);
        self.set_policy(name, statements);
        let key = self.aws(&["iam", "create-access-key", "--user-name", name]);
        let key = &key["AccessKey"];
        self.with_keys(&key["AccessKeyId"], &key["SecretAccessKey"], None)
    }

    /// Gives a user a policy of these statements, in place of the one before.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn set_policy(&self, name: &str, statements: &Json) {
        let document = policy(statements);
        let which = ["--user-name", name, "--policy-name", "the-only-one"];
        self.aws(&[&["iam", "put-user-policy", "--policy-document", &document][..], &which].concat());
    }

    /// A new role that `principal` may assume, with a policy of these statements; its ARN.
    ///
    /// # Panics
    /// Where it cannot be made.
    #[must_use]
    pub fn new_role(&self, name: &str, principal: &Json, statements: &Json) -> String {
        let trust = policy(&json!([{"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}]));
        let which = ["--role-name", name];
        let create = ["iam", "create-role", "--assume-role-policy-document", &trust];
        let role = self.aws(&[&create[..], &which].concat());
        let document = policy(statements);
        let put = ["iam", "put-role-policy", "--policy-name", "the-only-one", "--policy-document", &document];
        self.aws(&[&put[..], &which].concat());
        role["Role"]["Arn"].as_str().unwrap_or_else(|| panic!("no ARN: {role}")).to_owned()
    }

    /// A session of a role.
    ///
    /// # Panics
    /// Where it is refused.
    #[must_use]
    pub fn assume(&self, role: &str) -> Self {
        let session = self.aws(&["sts", "assume-role", "--role-arn", role, "--role-session-name", "e2e"]);
        let keys = &session["Credentials"];
        self.with_keys(&keys["AccessKeyId"], &keys["SecretAccessKey"], Some(&keys["SessionToken"]))
    }

    /// Whoever these keys belong to.
    ///
    /// # Panics
    /// Where they are no texts.
    #[must_use]
    pub fn with_keys(&self, id: &Json, secret: &Json, token: Option<&Json>) -> Self {
        let mut environment = self.environment.clone();
        let keys = [("AWS_ACCESS_KEY_ID", Some(id)), ("AWS_SECRET_ACCESS_KEY", Some(secret))];
        for (name, value) in keys.into_iter().chain([("AWS_SESSION_TOKEN", token)]) {
            let Some(value) = value else { continue };
            environment.insert(name.into(), value.as_str().unwrap().into());
        }
        Self { server: self.server, environment }
    }

    /// The account.
    ///
    /// # Panics
    /// Where it is not known.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.environment["AWS_ACCOUNT_ID"]
    }

    /// What the AWS CLI prints, as JSON; `null` where it prints nothing.
    ///
    /// # Panics
    /// Where the command fails.
    pub fn aws(&self, arguments: &[&str]) -> Json {
        let output = command::must(&mut command::aws(&self.environment, arguments));
        if output.trim().is_empty() {
            return Json::Null;
        }
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("aws {arguments:?}: {error}: {output}"))
    }

    /// What the AWS CLI complains of: a command that must fail.
    ///
    /// # Panics
    /// Where it succeeds.
    pub fn aws_error(&self, arguments: &[&str]) -> String {
        let output = command::run(&mut command::aws(&self.environment, arguments));
        assert!(!output.status.success(), "aws {arguments:?} succeeds: {}", command::text(&output.stdout));
        command::text(&output.stderr)
    }

    /// An answer of the AWS API to curl, which signs with long-term keys and starts much faster than the AWS CLI.
    ///
    /// # Panics
    /// Where no answer comes.
    #[must_use]
    pub fn api(&self, method: &str, path: &str, body: &Json) -> Answer {
        let variable = |name: &str| self.environment[name].as_str();
        let url = format!("{}{path}", variable("AWS_ENDPOINT_URL"));
        let scope = format!("aws:amz:{}:lambda", variable("AWS_REGION"));
        let keys = format!("{}:{}", variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let options = ["--aws-sigv4", &scope, "--user", &keys, "--request", method, "--data-binary", &body];
        http::curl(&self.environment, &url, &options)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }
}

fn policy(statements: &Json) -> String {
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}
