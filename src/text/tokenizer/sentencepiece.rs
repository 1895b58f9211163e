//! Reading the model file of sentencepiece, a message of Protocol Buffers.
//!
//! Only what a unigram tokeniser is made of is read; other fields are passed over. Not for:
//! making a tokeniser of it (`unigram`).

/// What a model file holds.
#[derive(Debug, PartialEq)]
pub(super) struct PieceModel {
    /// All pieces in the order of their numbers.
    pub pieces: Vec<ScoredPiece>,
    /// 1 for unigram.
    pub model_type: u64,
    /// The number of the unknown piece.
    pub unk_id: usize,
    /// The character map of the normaliser; may be empty.
    pub charsmap: Vec<u8>,
}

/// A piece of the vocabulary.
#[derive(Debug, PartialEq)]
pub(super) struct ScoredPiece {
    pub text: String,
    pub score: f32,
    pub kind: u64,
}

/// A kind of piece: pieces with a meaning of their own.
pub(super) const CONTROL: u64 = 3;
/// A kind of piece: pieces that the trainer was given.
pub(super) const USER_DEFINED: u64 = 4;
/// A model type.
pub(super) const UNIGRAM: u64 = 1;

impl PieceModel {
    /// Reads a model file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut model =
            Self { pieces: Vec::new(), model_type: UNIGRAM, unk_id: 0, charsmap: Vec::new() };
        let (mut trained, mut normalized) = (false, false);
        for_each_field(bytes, |number, value| {
            match (number, value) {
                (1, WireValue::Bytes(piece)) => {
                    let piece = ScoredPiece::parse(piece)
                        .map_err(|error| format!("piece {}: {error}", model.pieces.len()))?;
                    model.pieces.push(piece);
                }
                (2, WireValue::Bytes(trainer)) => for_each_field(trainer, |number, value| {
                    trained = true;
                    match (number, value) {
                        (3, WireValue::Number(model_type)) => model.model_type = model_type,
                        (40, WireValue::Number(unk_id)) => {
                            model.unk_id = usize::try_from(unk_id).unwrap_or(usize::MAX);
                        }
                        _ => {}
                    }
                    Ok(())
                })?,
                (3, WireValue::Bytes(normalizer)) => {
                    normalized = true;
                    for_each_field(normalizer, |number, value| {
                        if let (2, WireValue::Bytes(map)) = (number, value) {
                            model.charsmap = map.to_vec();
                        }
                        Ok(())
                    })?;
                }
                _ => {}
            }
            Ok(())
        })?;
        // They stand behind the pieces: a file that breaks off between two pieces lacks them.
        if !(trained && normalized) {
            return Err(CUT.to_owned());
        }
        Ok(model)
    }
}

impl ScoredPiece {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: 1 };
        for_each_field(bytes, |number, value| {
            match (number, value) {
                (1, WireValue::Bytes(text)) => {
                    piece.text = String::from_utf8(text.to_vec()).map_err(|_| "not UTF-8")?;
                }
                (2, WireValue::Four(score)) => piece.score = f32::from_le_bytes(score),
                (3, WireValue::Number(kind)) => piece.kind = kind,
                _ => {}
            }
            Ok(())
        })?;
        if piece.text.is_empty() || !piece.score.is_finite() {
            return Err(format!("the text `{}` with score {}", piece.text, piece.score));
        }
        Ok(piece)
    }
}

/// The value of a field.
enum WireValue<'b> {
    Number(u64),
    Bytes(&'b [u8]),
    Four([u8; 4]),
    Eight,
}

/// Calls `take` with the number and the value of every field of a message.
fn for_each_field<'b>(
    mut bytes: &'b [u8],
    mut take: impl FnMut(u64, WireValue<'b>) -> Result<(), String>,
) -> Result<(), String> {
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => WireValue::Number(varint(&mut bytes)?),
            1 => split(&mut bytes, 8).map(|_| WireValue::Eight)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).unwrap_or(usize::MAX);
                WireValue::Bytes(split(&mut bytes, length)?)
            }
            5 => {
                let (four, rest) = bytes.split_first_chunk().ok_or(CUT)?;
                bytes = rest;
                WireValue::Four(*four)
            }
            other => return Err(format!("a field of the unknown kind {other}")),
        };
        take(key >> 3, value)?;
    }
    Ok(())
}

const CUT: &str = "the file breaks off";

fn split<'b>(bytes: &mut &'b [u8], length: usize) -> Result<&'b [u8], String> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(CUT)?;
    *bytes = rest;
    Ok(taken)
}

/// A number in groups of seven bits, the lowest first.
fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(CUT)?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number of more than 64 bits".to_owned())
}
