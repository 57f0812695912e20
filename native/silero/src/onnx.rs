//! Reads the float tensors of one If branch out of an ONNX file, and nothing else.
//!
//! ONNX is protobuf (proto3 wire format). The path walked is fixed, so nothing recurses:
//! `ModelProto.graph` → `GraphProto.node` → the `If` node's `then_branch` → its `Constant` nodes'
//! `value` tensors. Every length is checked against the bytes that are left.

use crate::ModelError;

// Field numbers of onnx.proto.
const MODEL_GRAPH: u32 = 7;
const GRAPH_NODE: u32 = 1;
const NODE_OP_TYPE: u32 = 4;
const NODE_ATTRIBUTE: u32 = 5;
const ATTRIBUTE_NAME: u32 = 1;
const ATTRIBUTE_TENSOR: u32 = 5;
const ATTRIBUTE_GRAPH: u32 = 6;
const TENSOR_DIMS: u32 = 1;
const TENSOR_DATA_TYPE: u32 = 2;
const TENSOR_NAME: u32 = 8;
const TENSOR_RAW_DATA: u32 = 9;
const DATA_TYPE_FLOAT: u64 = 1;

/// A float tensor, still in the file's bytes.
#[derive(Debug)]
struct Tensor<'a> {
    name: &'a [u8],
    dims: Vec<u64>,
    data_type: u64,
    raw: &'a [u8],
}

/// The tensors of the branch that the model takes when its `If` condition (16 kHz) holds.
#[derive(Debug)]
pub(crate) struct Branch<'a> {
    tensors: Vec<Tensor<'a>>,
}

impl<'a> Branch<'a> {
    pub(crate) fn parse(file: &'a [u8]) -> Result<Self, ModelError> {
        let graph = Message(file)
            .bytes_field(MODEL_GRAPH)?
            .ok_or(ModelError::NoGraph)?;
        let branch = then_branch(graph)?.ok_or(ModelError::NoBranch)?;
        let mut tensors = Vec::new();
        for node in Message(branch).fields() {
            let (GRAPH_NODE, Value::Bytes(node)) = node? else {
                continue;
            };
            for attribute in Message(node).fields() {
                let (NODE_ATTRIBUTE, Value::Bytes(attribute)) = attribute? else {
                    continue;
                };
                if let Some(tensor) = Message(attribute).bytes_field(ATTRIBUTE_TENSOR)? {
                    tensors.push(tensor_of(tensor)?);
                }
            }
        }
        Ok(Self { tensors })
    }

    /// The values of the tensor `name`, which must be finite floats of exactly the shape `dims`.
    pub(crate) fn floats(&self, name: &'static str, dims: &[u64]) -> Result<Vec<f32>, ModelError> {
        let mut named = self
            .tensors
            .iter()
            .filter(|tensor| tensor.name == name.as_bytes());
        let tensor = named.next().ok_or(ModelError::MissingTensor { name })?;
        let bytes = dims.iter().product::<u64>() * 4;
        if tensor.dims != dims || tensor.data_type != DATA_TYPE_FLOAT || tensor.raw.len() as u64 != bytes {
            return Err(ModelError::Shape { name });
        }
        let (words, _) = tensor.raw.as_chunks::<4>();
        let values: Vec<f32> = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        if values.iter().all(|value| value.is_finite()) {
            Ok(values)
        } else {
            Err(ModelError::NotFinite { name })
        }
    }
}

fn then_branch(graph: &[u8]) -> Result<Option<&[u8]>, ModelError> {
    for node in Message(graph).fields() {
        let (GRAPH_NODE, Value::Bytes(node)) = node? else {
            continue;
        };
        if Message(node).bytes_field(NODE_OP_TYPE)? != Some(b"If") {
            continue;
        }
        for attribute in Message(node).fields() {
            let (NODE_ATTRIBUTE, Value::Bytes(attribute)) = attribute? else {
                continue;
            };
            if Message(attribute).bytes_field(ATTRIBUTE_NAME)? == Some(b"then_branch") {
                return Message(attribute).bytes_field(ATTRIBUTE_GRAPH);
            }
        }
    }
    Ok(None)
}

fn tensor_of(bytes: &[u8]) -> Result<Tensor<'_>, ModelError> {
    let mut tensor = Tensor {
        name: b"",
        dims: Vec::new(),
        data_type: 0,
        raw: b"",
    };
    for field in Message(bytes).fields() {
        match field? {
            (TENSOR_DIMS, Value::Number(dim)) => tensor.dims.push(dim),
            // proto3 packs repeated numbers by default, proto2 writers do not: both occur.
            (TENSOR_DIMS, Value::Bytes(packed)) => {
                let mut rest = packed;
                while !rest.is_empty() {
                    tensor.dims.push(varint(&mut rest)?);
                }
            }
            (TENSOR_DATA_TYPE, Value::Number(data_type)) => tensor.data_type = data_type,
            (TENSOR_NAME, Value::Bytes(name)) => tensor.name = name,
            (TENSOR_RAW_DATA, Value::Bytes(raw)) => tensor.raw = raw,
            _ => {}
        }
    }
    Ok(tensor)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// fixed32 or fixed64, which no field read here uses.
    Fixed,
}

/// An encoded protobuf message.
#[derive(Clone, Copy)]
struct Message<'a>(&'a [u8]);

impl<'a> Message<'a> {
    fn fields(self) -> Fields<'a> {
        Fields { rest: self.0 }
    }

    /// The first length-delimited field with this number.
    fn bytes_field(self, number: u32) -> Result<Option<&'a [u8]>, ModelError> {
        for field in self.fields() {
            if let (found, Value::Bytes(bytes)) = field?
                && found == number
            {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

/// Ends at the end of the message or after the first error.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), ModelError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = field(&mut self.rest);
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), ModelError> {
    let key = varint(rest)?;
    let number = u32::try_from(key >> 3).map_err(|_| ModelError::Malformed)?;
    let value = match key & 7 {
        0 => Value::Number(varint(rest)?),
        1 => take(rest, 8).map(|_| Value::Fixed)?,
        2 => {
            let length = varint(rest)?;
            Value::Bytes(take(rest, length)?)
        }
        5 => take(rest, 4).map(|_| Value::Fixed)?,
        _ => return Err(ModelError::Malformed),
    };
    Ok((number, value))
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], ModelError> {
    let length = usize::try_from(length).map_err(|_| ModelError::Truncated)?;
    let (head, tail) = rest.split_at_checked(length).ok_or(ModelError::Truncated)?;
    *rest = tail;
    Ok(head)
}

fn varint(rest: &mut &[u8]) -> Result<u64, ModelError> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(ModelError::Truncated)?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(ModelError::Malformed)
}
