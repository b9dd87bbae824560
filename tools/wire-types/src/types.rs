//! Structures, unions and enumerations with their serde attributes.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Member, Model, Shape};
use crate::names;
use crate::rust::{rule, type_of};
use crate::services::{Group, Service};

/// What the generated types may use: what of them shows that they do, and how it is named.
const USES: [(&str, &str); 6] = [
    ("BTreeMap<", "std::collections::BTreeMap"),
    ("", "serde::{Deserialize, Serialize}"),
    ("Sensitive", "crate::common::Sensitive"),
    ("text_enum!", "crate::common::text_enum"),
    ("IsoTimestamp", "crate::timestamp::IsoTimestamp"),
    (": Timestamp", "crate::timestamp::Timestamp"),
];
const DERIVES: &str = "#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]\n";

pub(crate) fn write(service: &Service, model: &Model) -> String {
    let mut text = String::new();
    for group in service.groups.iter().filter(|group| group.name != group.of) {
        let members = group_members(model, group);
        text += &format!("/// What {} and others share.\n", group.of);
        text += &structure(model, group.name, &members, &[]);
    }
    let inputs = inputs(service, model);
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for name in service.shapes(model) {
        let shape = model.shape(&name);
        match shape.kind.as_str() {
            "string" if !shape.values.is_empty() => text += &enumeration(&name, shape),
            "structure" if shape.union => text += &union(model, &name, shape),
            // Unit and its like: there is nothing to tell them apart by.
            "structure" if shape.members().is_empty() => {
                let about = about(service, model, &name);
                text += &format!("{about}pub type {name} = crate::common::Empty;\n\n");
            }
            "structure" => {
                let body = whole(model, service, &name, shape);
                let signature = body.replacen(&format!("pub struct {name} "), "", 1);
                match known.get(&signature) {
                    // A request is a type of its own: its operation hangs on it.
                    Some(same) if !inputs.contains(&name) => {
                        let about = about(service, model, &name);
                        text += &format!("{about}pub type {name} = {same};\n\n");
                    }
                    _ => {
                        if !inputs.contains(&name) {
                            known.insert(signature, name.clone());
                        }
                        text += &about(service, model, &name);
                        text += &body;
                    }
                }
            }
            _ => {}
        }
    }
    uses(&text) + &text
}

fn uses(text: &str) -> String {
    let used = USES.iter().filter(|(shows, _)| text.contains(shows));
    used.map(|(_, path)| format!("use {path};\n")).collect::<String>() + "\n"
}

/// What a structure is for, as its documentation.
fn about(service: &Service, model: &Model, name: &str) -> String {
    let found = service.operations(model).find_map(|(operation, of)| match &of.output {
        _ if of.input.shape == name => Some(format!("What {operation} takes")),
        Some(output) if output.shape == name => Some(format!("What {operation} answers")),
        _ => None,
    });
    format!("/// {}.\n", found.unwrap_or_else(|| "A part of what operations take or answer".into()))
}

/// The operations' inputs.
fn inputs(service: &Service, model: &Model) -> BTreeSet<String> {
    service.operations(model).map(|(_, of)| of.input.shape.clone()).collect()
}

fn group_members(model: &Model, group: &Group) -> Vec<Member> {
    let members = model.shape(group.of).members();
    let at =
        |name| members.iter().position(|member| member.name == name).expect("the group's members are there");
    members[at(group.first)..=at(group.last)].to_vec()
}

/// The structure with the members that make up a group replaced by it.
fn whole(model: &Model, service: &Service, name: &str, shape: &Shape) -> String {
    let mut members = shape.members();
    let mut held = vec![];
    for group in service.groups.iter().filter(|group| group.name != name) {
        let wanted = group_members(model, group);
        let same = |a: &Member, b: &Member| {
            a.name == b.name
                && a.required == b.required
                && b.target.location.is_none()
                && type_of(model, &a.target.shape) == type_of(model, &b.target.shape)
        };
        if wanted.iter().all(|wanted| members.iter().any(|member| same(wanted, member))) {
            members.retain(|member| !wanted.iter().any(|wanted| same(wanted, member)));
            held.push(group);
        }
    }
    structure(model, name, &members, &held)
}

fn structure(model: &Model, name: &str, members: &[Member], held: &[&Group]) -> String {
    let pascal = members.first().is_some_and(|member| member.name.starts_with(char::is_uppercase));
    let case = if pascal { "PascalCase" } else { "camelCase" };
    let plain = members.iter().all(|member| !member.required) && held.is_empty();
    let derives = if plain { DERIVES.replace("Debug, ", "Debug, Default, ") } else { DERIVES.to_owned() };
    let mut text = format!("{derives}#[serde(rename_all = \"{case}\")]\npub struct {name} {{\n");
    for group in held {
        text += &format!("/// The members of it.\n#[serde(flatten)]\npub {}: {},\n", group.field, group.name);
    }
    for member in members {
        text += &field(model, member, pascal);
    }
    text + "}\n\n"
}

fn field(model: &Model, member: &Member, pascal: bool) -> String {
    let name = names::field(&member.name);
    let kind = type_of(model, &member.target.shape);
    let about = rule(model.shape(&member.target.shape)).unwrap_or_else(|| member.target.shape.clone());
    let mut text = format!("/// {about}.\n");
    let mut serde = vec![];
    if names::serde_case(&name, pascal) != member.name {
        serde.push(format!("rename = \"{}\"", member.name));
    }
    if !member.required {
        serde.push("skip_serializing_if = \"Option::is_none\"".into());
    }
    if !serde.is_empty() {
        text += &format!("#[serde({})]\n", serde.join(", "));
    }
    let kind = if member.required { kind } else { format!("Option<{kind}>") };
    text + &format!("pub {name}: {kind},\n")
}

fn union(model: &Model, name: &str, shape: &Shape) -> String {
    let mut text = format!("/// One of them.\n{DERIVES}pub enum {name} {{\n");
    for member in shape.members() {
        let kind = type_of(model, &member.target.shape);
        text += &format!("/// `{0}`.\n#[serde(rename = \"{0}\")]\n", member.name);
        text += &format!("{}({kind}),\n", names::variant(&member.name));
    }
    text + "}\n\n"
}

fn enumeration(name: &str, shape: &Shape) -> String {
    let mut text = format!("text_enum!(/// One of a list.\n{name} {{\n");
    for value in &shape.values {
        text += &format!("/** `{value}`. */ {} = \"{value}\",\n", names::variant(value));
    }
    text + "});\n\n"
}
