//! Finding the columns of every input.

use std::collections::{BTreeMap, HashSet};
use std::sync::OnceLock;

use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use arrow_schema::{DataType as ArrowType, Schema};
use inferq_schemas::{DataType, Dim, TensorSpec, nearest};

use super::cells::{is_number, readable};
use super::element::number_in;
use super::error::{MappingError, Uncovered};
use super::shape::{needs, row_shape};
use super::{By, Input, InputNote, MapRule, Mapping};

/// Cells of the sample that are looked at to tell what a text column holds.
const SAMPLED_CELLS: usize = 1_000;

/// What a column holds, as far as can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    /// Lists, with their length if the type says it.
    List(Option<usize>),
    /// Text of which no cell was seen.
    Unknown,
    Other,
}

struct Table<'a> {
    columns: &'a Schema,
    kinds: Vec<Kind>,
}

pub(super) fn decide(
    columns: &Schema,
    specs: &[TensorSpec],
    maps: &[MapRule],
    declared: &BTreeMap<String, Vec<String>>,
    sample: Option<&RecordBatch>,
) -> Result<Mapping, MappingError> {
    let table = Table::new(columns, sample);
    check_rules(specs, maps, declared)?;
    let (mut inputs, mut missing) = (Vec::new(), Vec::new());
    for spec in specs {
        if spec.shape.is_empty() {
            let input = spec.name.clone();
            return Err(MappingError::NoRows { input });
        }
        let mapped = maps.iter().find(|rule| rule.input == spec.name);
        let found = if let Some(rule) = mapped {
            Ok((table.given("--map", &rule.columns, spec)?, By::Map))
        } else if let Some(names) = declared.get(&spec.name).filter(|names| table.knows(names)) {
            Ok((table.given("model.toml", names, spec)?, By::ModelToml))
        } else {
            table.search(spec, specs.len() == 1)
        };
        match found {
            Ok((places, by)) => {
                table.check_types(&places, spec.datatype)?;
                inputs.push(table.input(spec, places, by));
            }
            Err(reason) => missing.push(Uncovered {
                input: spec.name.clone(),
                spec: spec.to_string(),
                needs: needs(spec),
                reason,
            }),
        }
    }
    if !missing.is_empty() {
        return Err(MappingError::Uncovered {
            inputs: missing,
            columns: table.names().map(str::to_owned).collect(),
        });
    }
    let used: HashSet<usize> = inputs
        .iter()
        .flat_map(|input| input.places.clone())
        .collect();
    let ignored = table
        .names()
        .enumerate()
        .filter(|(place, _)| !used.contains(place));
    Ok(Mapping {
        ignored: ignored.map(|(_, name)| name.to_owned()).collect(),
        inputs,
    })
}

/// Whether all rules name inputs of the model, and none twice.
fn check_rules(
    specs: &[TensorSpec],
    maps: &[MapRule],
    declared: &BTreeMap<String, Vec<String>>,
) -> Result<(), MappingError> {
    let names = || specs.iter().map(|spec| spec.name.as_str());
    let by_map = maps.iter().map(|rule| ("--map", &rule.input));
    let by_toml = declared.keys().map(|input| ("model.toml", input));
    for (by, input) in by_map.chain(by_toml) {
        if !names().any(|name| name == input) {
            return Err(MappingError::NoInput {
                by,
                input: input.clone(),
                nearest: nearest(input, names()).map(str::to_owned),
            });
        }
    }
    let mut seen = HashSet::new();
    match maps.iter().find(|rule| !seen.insert(&rule.input)) {
        Some(rule) => Err(MappingError::Twice {
            input: rule.input.clone(),
        }),
        None => Ok(()),
    }
}

impl<'a> Table<'a> {
    fn new(columns: &'a Schema, sample: Option<&RecordBatch>) -> Self {
        let fields = columns.fields().iter().enumerate();
        let kinds = fields.map(|(place, field)| {
            let seen = sample.and_then(|batch| batch.columns().get(place));
            kind(field.data_type(), seen.map(|column| &**column))
        });
        Self {
            kinds: kinds.collect(),
            columns,
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.columns
            .fields()
            .iter()
            .map(|field| field.name().as_str())
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.names().position(|column| column == name)
    }

    /// Whether any of the columns is there. A table that has none of them has names of its own, or
    /// lists where others have columns.
    fn knows(&self, names: &[String]) -> bool {
        names.iter().any(|name| self.place(name).is_some())
    }

    /// The places of columns that somebody named for an input.
    fn given(
        &self,
        by: &'static str,
        names: &[String],
        spec: &TensorSpec,
    ) -> Result<Vec<usize>, MappingError> {
        let place = |name: &String| {
            self.place(name).ok_or_else(|| MappingError::NoColumn {
                by,
                column: name.clone(),
                nearest: nearest(name, self.names()).map(str::to_owned),
            })
        };
        let places: Vec<usize> = names.iter().map(place).collect::<Result<_, _>>()?;
        let lists = |place: &usize| match self.kinds[*place] {
            Kind::List(_) => true,
            Kind::Unknown => places.len() == 1,
            Kind::Number | Kind::Text | Kind::Other => false,
        };
        if !places.iter().any(lists) && row_shape(spec, &[], places.len()).is_err() {
            return Err(MappingError::Width {
                by,
                columns: places.len(),
                spec: spec.to_string(),
                needs: needs(spec),
            });
        }
        Ok(places)
    }

    /// The columns that their names, or the model's only input, say.
    fn search(&self, spec: &TensorSpec, only: bool) -> Result<(Vec<usize>, By), String> {
        let fits = |count| row_shape(spec, &[], count).is_ok();
        if let Some(place) = self.place(&spec.name) {
            let taken = match self.kinds[place] {
                Kind::List(_) | Kind::Unknown => true,
                Kind::Number | Kind::Text | Kind::Other => fits(1),
            };
            if taken {
                return Ok((vec![place], By::Name));
            }
        }
        let numbered = (0..).map_while(|n| self.place(&format!("{}_{n}", spec.name)));
        let numbered: Vec<usize> = numbered.collect();
        if !numbered.is_empty() {
            if fits(numbered.len()) {
                return Ok((numbered, By::Numbers));
            }
            let last = numbered.len() - 1;
            return Err(format!("there are `{0}_0` to `{0}_{last}` only", spec.name));
        }
        if only {
            return self.all(spec);
        }
        Err(self.close_to(&spec.name))
    }

    /// The only list, or all columns of the kind that the only input takes.
    fn all(&self, spec: &TensorSpec) -> Result<(Vec<usize>, By), String> {
        let of = |wanted: &dyn Fn(Kind) -> bool| -> Vec<usize> {
            let kinds = self.kinds.iter().enumerate();
            kinds
                .filter(|(_, kind)| wanted(**kind))
                .map(|(place, _)| place)
                .collect()
        };
        let fits = |count| row_shape(spec, &[], count).is_ok();
        let lists = of(&|kind| match kind {
            Kind::List(Some(length)) => fits(length),
            Kind::List(None) => true,
            Kind::Number | Kind::Text | Kind::Unknown | Kind::Other => false,
        });
        if lists.len() == 1 {
            return Ok((lists, By::All));
        }
        let wanted = match spec.datatype {
            DataType::Bytes => Kind::Text,
            _ => Kind::Number,
        };
        let alike = of(&|kind| kind == wanted || kind == Kind::Unknown);
        if fits(alike.len()) {
            return Ok((alike, By::All));
        }
        if self.kinds == [Kind::Unknown] {
            return Ok((vec![0], By::All));
        }
        let what = if wanted == Kind::Text {
            "text"
        } else {
            "number"
        };
        let count = alike.len();
        let plural = if count == 1 { "column" } else { "columns" };
        Err(format!(
            "there are {count} {what} {plural}; {}",
            self.close_to(&spec.name)
        ))
    }

    fn close_to(&self, name: &str) -> String {
        match nearest(name, self.names()) {
            Some(near) => format!("the nearest column is `{near}`"),
            None => "no column has a name like it".to_owned(),
        }
    }

    fn check_types(&self, places: &[usize], datatype: DataType) -> Result<(), MappingError> {
        let fields = places.iter().map(|place| self.columns.field(*place));
        for field in fields {
            if !readable(field.data_type(), datatype) {
                return Err(MappingError::Type {
                    column: field.name().clone(),
                    found: field.data_type().to_string(),
                    datatype,
                });
            }
        }
        Ok(())
    }

    fn input(&self, spec: &TensorSpec, places: Vec<usize>, by: By) -> Input {
        let name = |place: &usize| self.columns.field(*place).name().clone();
        let free = spec.shape[1..].contains(&Dim::Any);
        let single = |place: &usize| matches!(self.kinds[*place], Kind::Number | Kind::Text);
        let shape = OnceLock::new();
        // Columns of single values settle a free axis by their number.
        if !free || (places.len() > 1 && places.iter().all(single)) {
            let count = spec.shape[1..].iter().map(|dim| match dim {
                Dim::Fixed(size) => *size,
                Dim::Any => 1,
            });
            let count = if free { places.len() } else { count.product() };
            if let Ok(settled) = row_shape(spec, &[], count) {
                shape.get_or_init(|| settled);
            }
        }
        Input {
            note: InputNote {
                input: spec.name.clone(),
                datatype: spec.datatype,
                columns: places.iter().map(name).collect(),
                by,
            },
            spec: spec.clone(),
            places,
            shape,
        }
    }
}

/// What a column holds, by its type and the cells of the sample.
fn kind(datatype: &ArrowType, seen: Option<&dyn Array>) -> Kind {
    match datatype {
        ArrowType::Utf8 => text_kind(seen),
        ArrowType::Binary => Kind::Text,
        ArrowType::List(_) => Kind::List(None),
        ArrowType::FixedSizeList(item, size) => match item.data_type() {
            ArrowType::List(_) | ArrowType::FixedSizeList(..) => Kind::List(None),
            _ => Kind::List(usize::try_from(*size).ok()),
        },
        other if is_number(other) => Kind::Number,
        _ => Kind::Other,
    }
}

/// What most cells are: a few that do not fit are errors of their rows, not of the column.
fn text_kind(seen: Option<&dyn Array>) -> Kind {
    let Some(cells) = seen.and_then(|seen| seen.as_string_opt::<i32>()) else {
        return Kind::Unknown;
    };
    let cells = cells.iter().flatten().map(str::trim);
    let cells = cells.filter(|cell| !cell.is_empty()).take(SAMPLED_CELLS);
    let (mut numbers, mut lists, mut texts) = (0, 0, 0);
    for cell in cells {
        let is_number = match cell {
            "\"NaN\"" | "\"Infinity\"" | "\"-Infinity\"" => true,
            _ => number_in(cell).is_some(),
        };
        if is_number {
            numbers += 1;
        } else if cell.starts_with('[') {
            lists += 1;
        } else {
            texts += 1;
        }
    }
    match numbers.max(lists).max(texts) {
        0 => Kind::Unknown,
        most if most == numbers => Kind::Number,
        most if most == lists => Kind::List(None),
        _ => Kind::Text,
    }
}
