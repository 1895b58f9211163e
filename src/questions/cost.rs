//! What a document costs, in floating-point operations: the formulas of docs/design.md ("Costs").

use crate::systems::dsdocre::DsdocreSettings;

/// Forward FLOPs of DSDocRE's scores of all pairs of a document.
pub fn ranking_flops(entities: f64, width: f64) -> f64 {
    2.0 * entities * width * width + 2.0 * entities * entities * width
}

/// Forward FLOPs of `pairs` relation vectors over `tails` distinct tails.
pub fn relation_vector_flops(
    settings: &DsdocreSettings,
    pairs: f64,
    tails: f64,
    width: f64,
) -> f64 {
    let relation = settings.relation_width as f64;
    2.0 * tails * relation * width * width + 2.0 * pairs * relation * width
}

/// Forward FLOPs of the heads of pre-training for one document. Only alignment needs relation
/// vectors, for the share of items that states one fact twice.
pub fn pretraining_head_flops(settings: &DsdocreSettings, entities: f64, width: f64) -> f64 {
    let vectors =
        settings.same_fact_ratio * (2 + settings.alignment_hard + settings.alignment_random) as f64;
    let heads = relation_vector_flops(settings, vectors / 2.0, vectors / 2.0, width);
    ranking_flops(entities, width) + heads
}

/// Forward FLOPs of DSDocRE's fine-tuned heads for one document.
pub fn finetuning_head_flops(settings: &DsdocreSettings, entities: f64, width: f64) -> f64 {
    let pairs = settings.finetune_pairs().count(entities.round() as usize) as f64;
    relation_vector_flops(settings, pairs, entities.min(pairs), width)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::encoders::encoder_flops;

    #[test]
    fn the_table_of_the_design_is_reproduced() {
        let tiny = json!({"num_hidden_layers": 2, "hidden_size": 128, "intermediate_size": 512});
        let base = json!({"num_hidden_layers": 12, "hidden_size": 768, "intermediate_size": 3072});
        assert!((encoder_flops(&tiny, 310.0).unwrap() / (244e6 + 98e6) - 1.0).abs() < 0.01);
        assert!((encoder_flops(&base, 310.0).unwrap() / (52.7e9 + 3.5e9) - 1.0).abs() < 0.01);
        assert!((ranking_flops(20.0, 768.0) / 24e6 - 1.0).abs() < 0.02);
        let settings = DsdocreSettings::default();
        assert!((relation_vector_flops(&settings, 40.0, 20.0, 768.0) / 6.0e9 - 1.0).abs() < 0.02);
        let vectors = settings.same_fact_ratio * 2.0
            + settings.same_fact_ratio
                * (settings.alignment_hard + settings.alignment_random) as f64;
        let heads = pretraining_head_flops(&settings, 20.0, 768.0) - ranking_flops(20.0, 768.0);
        let expected = relation_vector_flops(&settings, vectors, vectors, 768.0) / 2.0;
        assert!((heads / expected - 1.0).abs() < 1e-9);
        let bilstm = json!({
            "model_type": "docre-bilstm", "lstm_hidden_size": 128, "num_hidden_layers": 1,
            "embedding_size": 100, "hidden_size": 128,
        });
        assert_eq!(
            encoder_flops(&bilstm, 1.0),
            Some(2.0 * 2.0 * 228.0 * 512.0 + 2.0 * 256.0 * 128.0)
        );
        assert_eq!(encoder_flops(&json!({"model_type": "docre-words"}), 10.0), None);
    }
}
