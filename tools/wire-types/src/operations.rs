//! The operations of all services: where each is reached, what it takes and gives, how it fails.

use std::collections::BTreeSet;

use crate::model::{Model, Operation};
use crate::names::constant;
use crate::services::Service;

pub(crate) fn write(services: &[(&Service, &Model)]) -> String {
    let all: Vec<_> = services
        .iter()
        .flat_map(|(service, model)| {
            service.operations(model).map(move |(name, of)| (*service, *model, name, of))
        })
        .collect();
    let mut text = String::from(
        "use crate::error::ErrorModel;\nuse crate::operation::{Family, OperationModel, Segment};\nuse crate::Request;\n\n",
    );
    text += "/// An operation.\n#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]\n\
        #[allow(missing_docs)] // Each is the operation of its name.\npub enum Operation {\n";
    for (_, _, name, _) in &all {
        text += &format!("{name},\n");
    }
    text += "}\n\n/// All of them, in the order of [`Operation`].\n";
    text += &format!("pub static OPERATIONS: [OperationModel; {}] = [\n", all.len());
    for (service, _, name, of) in &all {
        text += &operation(service, name, of);
    }
    text += "];\n\n";
    for (service, model) in services {
        text += &errors(service, model);
    }
    for (service, _, name, of) in &all {
        text += &request(service, name, of);
    }
    text
}

fn operation(service: &Service, name: &str, of: &Operation) -> String {
    let shape = |shape: &str| format!("&super::{}_constraints::{}", service.module, constant(shape));
    let output = of.output.as_ref().map_or("None".into(), |output| format!("Some({})", shape(&output.shape)));
    let errors: Vec<&str> = of.errors.iter().map(|error| error.shape.as_str()).collect();
    format!(
        "OperationModel {{ operation: Operation::{name}, name: {name:?}, family: Family::{}, method: {:?}, \
         path: &[{}], status: {}, input: {}, output: {output}, errors: &{errors:?} }},\n",
        service.family,
        of.http.method,
        of.http.request_uri.trim_start_matches('/').split('/').map(segment).collect::<String>(),
        of.http.response_code,
        shape(&of.input.shape),
    )
}

fn segment(text: &str) -> String {
    match text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) {
        Some(label) => format!("Segment::Label({label:?}), "),
        None => format!("Segment::Literal({text:?}), "),
    }
}

fn errors(service: &Service, model: &Model) -> String {
    let ours = service.operations(model).map(|(_, of)| of);
    let names: BTreeSet<&str> =
        ours.flat_map(|of| of.errors.iter().map(|error| error.shape.as_str())).collect();
    let mut text = format!(
        "/// The errors that operations of {} answer.\npub(crate) static {}_ERRORS: [ErrorModel; {}] = [\n",
        service.model.split('/').next().unwrap_or_default(),
        service.family.to_uppercase(),
        names.len()
    );
    for name in names {
        let shape = model.shape(name);
        let error = shape.error.as_ref().expect("an error has a status");
        let members = shape.members();
        let body = members.iter().filter(|member| member.target.location.is_none());
        let body: Vec<&str> = body.map(|member| member.name.as_str()).collect();
        let retry = members.iter().any(|member| member.target.location.as_deref() == Some("header"));
        text += &format!(
            "ErrorModel {{ name: {name:?}, status: {}, sender: {}, members: &{body:?}, retry_after: {retry} }},\n",
            error.http_status_code, error.sender_fault
        );
    }
    text + "];\n\n"
}

fn request(service: &Service, name: &str, of: &Operation) -> String {
    let of_service = |shape: &str| format!("super::{}::{shape}", service.module);
    let response = of.output.as_ref().map_or("()".into(), |output| of_service(&output.shape));
    format!(
        "impl Request for {} {{ type Response = {response}; const OPERATION: Operation = Operation::{name}; }}\n",
        of_service(&of.input.shape)
    )
}
