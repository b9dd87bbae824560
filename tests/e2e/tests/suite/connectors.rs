//! What a MicroVM reaches through a network connector of its account.

use std::io::Write;

use rekindle_e2e::{Image, Microvm, NameServer, Neighbour, Server, json, microvm, neighbour, until};

use tempfile::NamedTempFile;

use crate::fixture;

/// In the suite's settings, `networks.toml`.
const SUBNET: &str = "subnet-0a1b2c3d";
const GROUP: &str = "sg-0a1b2c3d";
/// In the settings of [`by_names`]: leads to every public address.
const INTERNET: &str = "subnet-0e5f6a7b";
/// Lets out what is below `rke2e.test`.
const NAMED: &str = "sg-0e5f6a7b";
/// All that a guest has; the last is for containers within its container.
const RESOLVERS: [&str; 3] = ["169.254.53.53", "127.0.0.2", "169.254.169.253"];
const NO_EGRESS: &str = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:NO_EGRESS";

/// A connector that is ready; its ARN.
fn connector(server: &Server, name: &str, groups: &[&str]) -> String {
    connector_into(server, name, SUBNET, groups, "IPv4")
}

fn connector_into(server: &Server, name: &str, subnet: &str, groups: &[&str], protocol: &str) -> String {
    let vpc = json!({"VpcEgressConfiguration": {
        "SubnetIds": [subnet],
        "SecurityGroupIds": groups,
        "NetworkProtocol": protocol,
        "AssociatedComputeResourceTypes": ["MicroVm"],
    }});
    let create = ["lambda-core", "create-network-connector", "--name", name, "--configuration"];
    let made = server.aws(&[&create[..], &[&vpc.to_string()]].concat());
    until(&format!("{name} to be ACTIVE"), microvm::SETTLE, || {
        let shown = server.aws(&["lambda-core", "get-network-connector", "--identifier", name]);
        (shown["State"] == "ACTIVE").then_some(())
    });
    made["Arn"].as_str().unwrap().to_owned()
}

fn run<'a>(server: &'a Server, image: &Image, connector: &str) -> Microvm<'a> {
    Microvm::run(server, image, &["--egress-network-connectors", connector])
}

fn reaches(microvm: &Microvm<'_>, neighbour: &Neighbour) -> bool {
    reaches_host(microvm, &neighbour.address)
}

fn reaches_host(microvm: &Microvm<'_>, host: &str) -> bool {
    microvm.json(&format!("/connect?host={host}&port={}", neighbour::PORT))["reached"] == true
}

fn sleep_if(microvm: &Microvm<'_>, sleepy: bool) {
    if sleepy {
        microvm.suspend();
        microvm.resume();
    }
}

pub(crate) fn a_microvm_reaches_its_connectors_networks_in_every_life() {
    let server = fixture::shared();
    let image = fixture::probe(&server);
    let listed = Neighbour::new("listed", "10.213.7");
    let listed_v6 = listed.by_ipv6("fd12:213:7:");
    let unlisted = Neighbour::new("unlisted", "10.213.8");
    let public = Neighbour::new("open", "198.51.104");
    let open = connector(&server, "open", &[]);
    let (bound, other) = (run(&server, &image, &open), Microvm::run(&server, &image, &[]));
    let reached = |microvm: &Microvm<'_>| [&listed, &unlisted, &public].map(|to| reaches(microvm, to));
    assert_eq!(reached(&bound), [true, false, false], "listed, and neither the rest nor the internet");
    assert_eq!(reached(&other), [false, false, true], "another MicroVM has no part in it");
    assert!(!reaches_host(&bound, &listed_v6), "IPv6 through a connector for IPv4");
    bound.suspend();
    bound.resume();
    assert_eq!(reached(&bound), [true, false, false], "after a sleep");

    let in_use = server.aws_error(&["lambda-core", "delete-network-connector", "--identifier", "open"]);
    assert!(in_use.contains("ResourceConflictException"), "{in_use}");
    bound.terminate();
    server.aws(&["lambda-core", "delete-network-connector", "--identifier", "open"]);

    let dual = connector_into(&server, "dual", SUBNET, &[], "DualStack");
    let bound = run(&server, &image, &dual);
    for has_slept in [false, true] {
        sleep_if(&bound, has_slept);
        assert!(reaches_host(&bound, &listed_v6), "has slept: {has_slept}: by IPv6 too");
        assert_eq!(reached(&bound), [true, false, false], "has slept: {has_slept}");
    }
    bound.terminate();
    server.aws(&["lambda-core", "delete-network-connector", "--identifier", "dual"]);

    // No way out at all, and no names; the endpoint is there as ever, or nothing of this would be answered.
    let none = run(&server, &image, NO_EGRESS);
    for has_slept in [false, true] {
        sleep_if(&none, has_slept);
        assert_eq!(reached(&none), [false; 3], "has slept: {has_slept}");
        assert!(!reaches_host(&none, &listed_v6), "has slept: {has_slept}: by IPv6");
        let named = none.json("/connect?host=secret.example.com&port=80");
        let error = named["error"].as_str().unwrap();
        assert!(error.contains("Name or service not known"), "has slept: {has_slept}: {named}");
    }
    none.terminate();

    // A group that lets nothing of this out.
    let closed = connector(&server, "closed", &[GROUP]);
    let bound = run(&server, &image, &closed);
    assert_eq!(reached(&bound), [false, false, false], "past the security group");
    let region = bound.json("/metadata?path=/latest/meta-data/placement/region");
    assert_eq!(region["text"], server.variable("AWS_REGION"), "metadata needs no way out");
    [bound, other].iter().for_each(|microvm| drop(microvm.terminate()));
    server.aws(&["lambda-core", "delete-network-connector", "--identifier", "closed"]);
}

pub(crate) fn a_restart_gives_a_microvm_its_networks_again() {
    let mut server = fixture::exclusive();
    let image = fixture::probe(&server);
    let listed = Neighbour::new("again", "10.213.7");
    let public = Neighbour::new("outside", "198.51.104");
    let again = connector(&server, "again", &[]);
    let (id, endpoint) = {
        let bound = run(&server, &image, &again);
        (bound.id.clone(), bound.endpoint.clone())
    };
    let auth = format!("X-aws-proxy-auth: {}", microvm::token(&server, &id, r#"[{"allPorts":{}}]"#));
    let reached = |server: &Server| {
        [&listed, &public].map(|to| {
            let path = format!("/connect?host={}&port={}", to.address, neighbour::PORT);
            let answer = server.curl(&format!("https://{endpoint}{path}"), &["--header", &auth]);
            answer.expect(200).json()["reached"] == true
        })
    };
    assert_eq!(reached(&server), [true, false]);
    server.kill();
    let names = [("a.rke2e.test", &*public.address), ("rebind.rke2e.test", &listed.address)];
    let names = NameServer::start(&names);
    let settings = by_names(&names);
    server.restart_with(&["--config", settings.path().to_str().unwrap()]);
    assert_eq!(reached(&server), [true, false], "adopted");
    let profile = "/metadata?path=/latest/meta-data/iam/security-credentials/";
    let answer = server.curl(&format!("https://{endpoint}{profile}"), &["--header", &auth]);
    assert_eq!(answer.expect(200).json()["text"], "execution_role", "who it is, too");
    a_microvm_reaches_the_names_of_its_group(&server, &image, &names, &public);
    server.restart_with(&["--config", fixture::SETTINGS]);
    server.aws(&["lambda-microvms", "terminate-microvm", "--microvm-identifier", &id]);
    until(&format!("{id} to be gone"), microvm::SETTLE, || {
        (server.microvm(&id)["state"] == "TERMINATED").then_some(())
    });
    server.aws(&["lambda-core", "delete-network-connector", "--identifier", "again"]);
}

/// The suite's settings, and with them a group that has names, which are asked for there.
fn by_names(names: &NameServer) -> NamedTempFile {
    let mut settings = NamedTempFile::new().unwrap();
    let suite = std::fs::read_to_string(fixture::SETTINGS).unwrap();
    let port = neighbour::PORT;
    let text = format!(
        r#"
        name_servers = ["{}"]
        {suite}
        [[subnet]]
        id = "{INTERNET}"
        routes = ["0.0.0.0/0"]
        [[security_group]]
        id = "{NAMED}"
        egress = [{{ domain = "*.rke2e.test", protocol = "tcp", ports = "{port}" }}]
        "#,
        names.address
    );
    settings.write_all(text.as_bytes()).unwrap();
    settings
}

fn a_microvm_reaches_the_names_of_its_group(
    server: &Server,
    image: &Image,
    names: &NameServer,
    public: &Neighbour,
) {
    let named = connector_into(server, "named", INTERNET, &[NAMED], "IPv4");
    let bound = run(server, image, &named);
    for has_slept in [false, true] {
        // A sleep keeps nothing of what was resolved.
        sleep_if(&bound, has_slept);
        let reaches = |host: &str| reaches_host(&bound, host);
        assert!(!reaches(&public.address), "has slept: {has_slept}: by its address alone");
        assert!(reaches("a.rke2e.test"), "has slept: {has_slept}: by its name");
        assert!(reaches(&public.address), "has slept: {has_slept}: once it was told the address");
        assert!(!reaches("rebind.rke2e.test"), "has slept: {has_slept}: into a private network");
        assert!(!reaches("secret.example.com"), "has slept: {has_slept}: another name");
        for resolver in RESOLVERS {
            let told = |name: &str| bound.json(&format!("/names?server={resolver}&name={name}"));
            assert_eq!(told("a.rke2e.test"), json!({"udp": 1, "tcp": 1}), "{resolver}");
            assert_eq!(told("secret.example.com"), json!({"udp": 0, "tcp": 0}), "{resolver}");
        }
    }
    assert!(names.was_asked("rebind.rke2e.test") && !names.was_asked("secret.example.com"));
    bound.terminate();
    server.aws(&["lambda-core", "delete-network-connector", "--identifier", "named"]);
}
