//! What a MicroVM reaches through a network connector of its account.

use rekindle_e2e::{Image, Microvm, Neighbour, Server, json, microvm, neighbour, until};

use crate::fixture;

/// In the suite's settings, `networks.toml`.
const SUBNET: &str = "subnet-0a1b2c3d";
const GROUP: &str = "sg-0a1b2c3d";

/// A connector that is ready; its ARN.
fn connector(server: &Server, name: &str, groups: &[&str]) -> String {
    let vpc = json!({"VpcEgressConfiguration": {
        "SubnetIds": [SUBNET],
        "SecurityGroupIds": groups,
        "NetworkProtocol": "IPv4",
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
    let path = format!("/connect?host={}&port={}", neighbour.address, neighbour::PORT);
    microvm.json(&path)["reached"] == true
}

pub(crate) fn a_microvm_reaches_its_connectors_networks_in_every_life() {
    let server = fixture::shared();
    let image = fixture::probe(&server);
    let listed = Neighbour::new("listed", "10.213.7");
    let unlisted = Neighbour::new("unlisted", "10.213.8");
    let public = Neighbour::new("open", "198.51.104");
    let open = connector(&server, "open", &[]);
    let (bound, other) = (run(&server, &image, &open), Microvm::run(&server, &image, &[]));
    let reached = |microvm: &Microvm<'_>| [&listed, &unlisted, &public].map(|to| reaches(microvm, to));
    assert_eq!(reached(&bound), [true, false, false], "listed, and neither the rest nor the internet");
    assert_eq!(reached(&other), [false, false, true], "another MicroVM has no part in it");
    bound.suspend();
    bound.resume();
    assert_eq!(reached(&bound), [true, false, false], "after a sleep");

    let in_use = server.aws_error(&["lambda-core", "delete-network-connector", "--identifier", "open"]);
    assert!(in_use.contains("ResourceConflictException"), "{in_use}");
    bound.terminate();
    server.aws(&["lambda-core", "delete-network-connector", "--identifier", "open"]);

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
    server.restart();
    assert_eq!(reached(&server), [true, false], "adopted");
    let profile = "/metadata?path=/latest/meta-data/iam/security-credentials/";
    let answer = server.curl(&format!("https://{endpoint}{profile}"), &["--header", &auth]);
    assert_eq!(answer.expect(200).json()["text"], "execution_role", "who it is, too");
    server.aws(&["lambda-microvms", "terminate-microvm", "--microvm-identifier", &id]);
    until(&format!("{id} to be gone"), microvm::SETTLE, || {
        (server.microvm(&id)["state"] == "TERMINATED").then_some(())
    });
    server.aws(&["lambda-core", "delete-network-connector", "--identifier", "again"]);
}
