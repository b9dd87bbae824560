//! The constraints as tables: what a request is read and checked by.

use crate::model::{Member, Model, Shape};
use crate::names::constant;
use crate::services::Service;

const USES: &str = "use crate::shape::{Member, Pattern, Place, Shape, Text};\n\n";

pub(crate) fn write(service: &Service, model: &Model) -> String {
    service.shapes(model).iter().fold(USES.to_owned(), |text, name| text + &table(name, model.shape(name)))
}

fn table(name: &str, shape: &Shape) -> String {
    let id = constant(name);
    let value = match shape.kind.as_str() {
        "boolean" => "Shape::Boolean".into(),
        "timestamp" => "Shape::Timestamp".into(),
        "integer" | "long" => format!("Shape::Integer {{ min: {:?}, max: {:?} }}", shape.min, shape.max),
        "string" => return text(&id, shape),
        "list" => {
            let item = shape.member.as_ref().map(|to| constant(&to.shape)).unwrap_or_default();
            format!("Shape::List {{ item: &{item}, min: {:?}, max: {:?} }}", shape.min, shape.max)
        }
        "map" => {
            let of = |to: &Option<crate::model::Reference>| {
                to.as_ref().map(|to| constant(&to.shape)).unwrap_or_default()
            };
            format!(
                "Shape::Map {{ key: &{}, value: &{}, min: {:?}, max: {:?} }}",
                of(&shape.key),
                of(&shape.value),
                shape.min,
                shape.max
            )
        }
        _ => {
            let kind = if shape.union { "Union" } else { "Structure" };
            format!("Shape::{kind}(&[{}])", shape.members().iter().map(member).collect::<String>())
        }
    };
    format!("pub(crate) static {id}: Shape = {value};\n")
}

fn text(id: &str, shape: &Shape) -> String {
    let mut text = String::new();
    let pattern = shape.pattern.as_ref().map_or("None".to_owned(), |pattern| {
        text += &format!("static {id}_PATTERN: Pattern = Pattern::new(r#\"{pattern}\"#);\n");
        format!("Some(&{id}_PATTERN)")
    });
    text + &format!(
        "pub(crate) static {id}: Shape = Shape::Text(Text {{ min: {:?}, max: {:?}, pattern: {pattern}, values: &{:?} }});\n",
        shape.min, shape.max, shape.values
    )
}

fn member(member: &Member) -> String {
    let (place, wire) = match member.target.location.as_deref() {
        None => ("Body", &member.name),
        Some("uri") => ("Path", member.target.location_name.as_ref().unwrap_or(&member.name)),
        Some("querystring") => ("Query", member.target.location_name.as_ref().unwrap_or(&member.name)),
        Some(other) => panic!("member {} is in the {other}, which this generator does not know", member.name),
    };
    format!(
        "Member {{ name: {:?}, wire: {wire:?}, place: Place::{place}, required: {}, shape: &{} }},\n",
        member.name,
        member.required,
        constant(&member.target.shape)
    )
}
