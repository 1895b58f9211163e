//! Tests of the page, with made-up data. `DOCRE_REPORT_SAMPLE=FILE` keeps the sample page to look
//! at it.

use super::super::*;
use super::*;
use crate::eval::{
    Breakdown, Confused, CurvePoint, EvidenceRecall, InferScores, KEPT_IN_REPORTS, NamedBlock,
    RankedDocument, RankedFact, ScoreBlock, ScoredFact, recall_at, reliability,
};

fn named(name: &str, gold: usize, correct: usize) -> NamedBlock {
    NamedBlock { name: name.into(), block: ScoreBlock::new(gold * 11 / 10, gold, correct) }
}

fn wave(step: u32) -> f64 {
    0.05 * (f64::from(step) * 0.7).sin() + 0.04 * (f64::from(step) * 2.3).cos()
}

fn losses() -> Vec<LossCurve> {
    let curve = |stage: &str, task: &str, start: f64, steps: u32| {
        let value = |step: u32| {
            start
                * (0.25 + 0.75 * (-f64::from(step) / (f64::from(steps) * 0.2)).exp())
                * (1.0 + wave(step))
        };
        let points = (0..steps).map(|step| (f64::from(step), value(step))).collect();
        LossCurve { stage: stage.into(), task: task.into(), points }
    };
    let tasks = [
        ("", 9.2),
        ("MenMat", 1.8),
        ("XMenMat", 2.0),
        ("RelDet", 1.7),
        ("XRelDet", 1.9),
        ("RelAlign", 1.6),
    ];
    let mut curves = vec![curve("rank", "", 0.69, 900)];
    curves.extend(tasks.map(|(task, start)| curve("pretrain", task, start, 3000)));
    curves.push(curve("finetune", "", 2.1, 1200));
    curves
}

fn labels(number: usize) -> RelationLabels {
    let count = number.is_multiple_of(2).then_some(30);
    RelationLabels {
        relation: format!("P{number}"),
        name: "twin town".into(),
        labels: 80,
        kept: 40,
        truths: count,
        kept_true: count,
    }
}

fn dropped(number: usize) -> DroppedLabel {
    let part = |text: &str, role| TextPart { text: text.into(), role };
    DroppedLabel {
        title: format!("Northern Line Extension {number}"),
        text: vec![
            part("Mira Okafor", TextRole::Head),
            part("moved north after the war and never went back .", TextRole::Plain),
            part("…", TextRole::Gap),
            part("The museum of", TextRole::Plain),
            part("Tarvik", TextRole::Tail),
            part("keeps two of her letters .", TextRole::Plain),
        ],
        relation: "place of birth".into(),
        score: Some(-1.25 - number as f64 / 50.0),
        rank: Some(212 + number),
        pairs: 306,
        truth: [Some(false), Some(false), Some(true), None][number % 4],
    }
}

fn breakdown() -> Breakdown {
    let evidence = |(number, gold): (usize, usize)| EvidenceRecall {
        evidence: if number == 8 { "≥8".into() } else { number.to_string() },
        gold,
        found: gold * (70 - 4 * number) / 100,
        recall: (gold > 0).then_some(0.7 - 0.04 * number as f64),
    };
    let block = ScoreBlock::new(900, 1000, 560);
    Breakdown {
        overall: ScoreBlock::new(2000, 2208, 1180),
        intra: ScoreBlock::new(1000, 1045, 640),
        inter: ScoreBlock::new(1000, 1163, 540),
        distance: [
            ("[0,1)", 1045, 640),
            ("[1,3)", 703, 340),
            ("[3,∞)", 460, 200),
            ("[0,3)", 1748, 980),
            ("[1,∞)", 1163, 540),
            ("[6,∞)", 138, 50),
        ]
        .map(|(name, gold, correct)| named(name, gold, correct))
        .to_vec(),
        mentions: vec![
            named("[1,2)", 1408, 720),
            named("[2,4)", 658, 370),
            named("[4,∞)", 142, 90),
        ],
        evidence: [40, 511, 436, 61, 15, 10, 1, 0, 1]
            .into_iter()
            .enumerate()
            .map(evidence)
            .collect(),
        infer: InferScores {
            members_strict: block,
            members_loose: block,
            conclusion: block,
            gold_pairs: block,
        },
        frequent: ScoreBlock::new(1300, 1400, 830),
        long_tail: ScoreBlock::new(700, 808, 350),
        relations: (0..57)
            .map(|number| named(&format!("P{}", 17 + number), 400 - 7 * number, 230 - 4 * number))
            .collect(),
    }
}

fn ranked(number: usize) -> RankedDocument {
    let entities = 8 + number % 9;
    let pairs = (0..entities).flat_map(|head| {
        (0..entities).filter(move |tail| *tail != head).map(move |tail| (head, tail))
    });
    let mut ranking: Vec<_> = pairs.collect();
    ranking.sort_by_key(|(head, tail)| (head * 7919 + tail * 104_729 + number * 31) % 1009);
    let fact = |place: usize, truth| RankedFact {
        head: ranking[place].0,
        tail: ranking[place].1,
        truth: Some(truth),
    };
    let mut facts: Vec<_> =
        (0..8).map(|label| fact((label * label * entities / 20) % ranking.len(), true)).collect();
    facts.extend((0..4).map(|label| fact((label + 1) * ranking.len() / 5 + number % 7, false)));
    RankedDocument { entities, facts, ranking }
}

fn sample() -> ReportData {
    let row = |variant: &str, split: &str, f1: f64| VariantScores {
        variant: variant.into(),
        split: split.into(),
        f1,
        f1_sd: Some(0.0042),
        ign_f1: Some(f1 - 0.016),
        precision: f1 + 0.03,
        recall: f1 - 0.028,
        seeds: 3,
    };
    let learning = |name: &str, top: f64| Series {
        name: name.into(),
        points: (1..=15)
            .map(|epoch| (f64::from(epoch), top * (1.0 - (-f64::from(epoch) / 3.0).exp())))
            .collect(),
    };
    let time = |stage: &str, seconds, steps, documents_per_s: f64| StageTime {
        stage: stage.into(),
        seconds,
        steps,
        documents_per_s: Some(documents_per_s),
        tokens_per_s: Some(documents_per_s * 251.0),
    };
    let point = |i: u32| {
        let recall = f64::from(i) / 110.0;
        CurvePoint {
            theta: 1.0 - recall as f32,
            recall,
            precision: 0.97 - 0.62 * recall.powi(3) + wave(i) / 6.0,
            f1: 0.0,
        }
    };
    let scored =
        |i: u32| ScoredFact { score: 1.0 - i as f32 / 101.0, correct: i % 7 < 3, in_train: false };
    let confused = |gold: &str, predicted: Option<&str>, pairs| Confused {
        gold: Some(gold.into()),
        predicted: predicted.map(str::to_owned),
        pairs,
    };
    ReportData {
        confusion: vec![
            confused("P17", Some("P17"), 220),
            confused("P17", Some("P131"), 31),
            confused("P131", None, 64),
        ],
        title: "Quick start: denoised pre-training on the generated world".into(),
        summary: "Ranker, pre-training on 4,000 distantly labelled documents, fine-tuning on 300 \
             annotated ones; encoder `tiny`, two ranks."
            .into(),
        recipe: [
            ("encoder", "tiny (2 × 128)"),
            ("tasks", "MenMat, XMenMat, RelDet, XRelDet, RelAlign"),
            ("kept pairs", "2N"),
            ("global batch", "32"),
        ]
        .map(|(name, value)| NamedValue::new(name, value))
        .to_vec(),
        scores: vec![
            row("random start", "dev", 0.412),
            row("random start", "test", 0.405),
            row("pre-trained, no denoising", "dev", 0.521),
            row("pre-trained, no denoising", "test", 0.514),
            row("pre-trained, denoised", "dev", 0.583),
            row("pre-trained, denoised", "test", 0.577),
        ],
        reference: published_results(&crate::systems::dsdocre::DSDOCRE.info()),
        losses: losses(),
        learning: vec![
            learning("denoised", 0.583),
            learning("no denoising", 0.521),
            learning("random start", 0.412),
        ],
        ranker: recall_at((0..300).map(ranked), &KEPT_IN_REPORTS),
        ranker_gold: recall_at((0..20).map(ranked), &KEPT_IN_REPORTS),
        curve: (1..=100).map(point).collect(),
        reliability: reliability(&(1..=100).map(scored).collect::<Vec<_>>(), 40),
        calibrated: reliability(&(1..=100).map(scored).collect::<Vec<_>>(), 40),
        breakdown: Some(breakdown()),
        relation_names: [("P17", "country"), ("P18", "image of a <thing>")]
            .map(|(id, name)| (id.into(), name.into()))
            .into(),
        relation_labels: (0..43).map(labels).collect(),
        dropped: (0..60).map(dropped).collect(),
        times: vec![
            time("rank", 42.0, Some(900), 180.4),
            time("score", 12.4, None, 348.0),
            time("pretrain", 1204.0, Some(3000), 92.3),
            time("finetune", 4310.0, Some(1200), 71.0),
        ],
        run: [
            ("version", "0.1.0 (936fe5f)"),
            ("libtorch", "2.11.0"),
            ("world size", "2"),
            ("seeds", "13, 14, 15"),
            ("order hash", "9f31c0d2"),
        ]
        .map(|(name, value)| NamedValue::new(name, value))
        .to_vec(),
        notes: vec!["Three seeds; the spread is a sample standard deviation.".into()],
    }
}

#[test]
fn full_page() {
    let page = render(&sample()).unwrap();
    for expected in [
        "58.30",
        "<small>± 0.42</small>",
        "not comparable",
        "58.65",
        "mark class=\"head\"",
        "Stage pretrain, by task",
        "RelAlign",
        "20 min 04 s",
        "Distant labels by k",
        "Gold facts of dev by k",
    ] {
        assert!(page.contains(expected), "{expected} is missing");
    }
    assert!(
        page.contains("40 shown, 20 more left out.")
            && page.contains("40 shown, 17 more left out.")
    );
    assert!(
        page.contains("40 shown, 3 more left out.")
            && page.contains("<td class=\"n\">37.50</td><td class=\"n\">75.00</td>"),
        "shares of labels"
    );
    assert_eq!(page.matches("<figure").count(), 5 + 4 + 2 + 8);
    assert!(
        !page.contains("http:") && !page.contains("https:") && !page.contains("<script"),
        "the page needs no network"
    );
    if let Some(path) = std::env::var_os("DOCRE_REPORT_SAMPLE") {
        write_report(Path::new(&path), &sample()).unwrap();
    }
}

#[test]
fn empty_page_and_round_trip() {
    let page = render(&ReportData::default()).unwrap();
    assert!(
        page.contains("<h1>Run report</h1>") && !page.contains("<h2>") && !page.contains("<figure")
    );
    // Without the numbers that JSON text holds only to the last digit but one.
    let data = ReportData {
        dropped: vec![dropped(0)],
        run: vec![NamedValue::new("a", 1)],
        ..ReportData::default()
    };
    let json = serde_json::to_string(&data).unwrap();
    assert_eq!(serde_json::from_str::<ReportData>(&json).unwrap(), data);
    assert_eq!(serde_json::from_str::<ReportData>("{}").unwrap(), ReportData::default());
}

#[test]
fn hostile_text_is_escaped_everywhere() {
    let evil = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>";
    let series = Series { name: evil.into(), points: vec![(0.0, 0.1), (1.0, 0.2)] };
    let part = TextPart { text: evil.into(), role: TextRole::Head };
    let data = ReportData {
        title: evil.into(),
        summary: evil.into(),
        recipe: vec![NamedValue::new(evil, evil)],
        run: vec![NamedValue::new(evil, evil)],
        notes: vec![evil.into()],
        scores: vec![VariantScores {
            variant: evil.into(),
            split: "dev".into(),
            ..VariantScores::default()
        }],
        reference: vec![ReferenceRow { model: evil.into(), ..ReferenceRow::default() }],
        losses: vec![LossCurve {
            stage: evil.into(),
            task: evil.into(),
            points: series.points.clone(),
        }],
        learning: vec![series.clone(), series],
        breakdown: Some(Breakdown {
            relations: vec![named(evil, 3, 1)],
            distance: vec![named(evil, 3, 1)],
            ..Breakdown::default()
        }),
        relation_names: [(evil.to_owned(), evil.to_owned())].into(),
        dropped: vec![DroppedLabel {
            title: evil.into(),
            text: vec![part],
            relation: evil.into(),
            ..DroppedLabel::default()
        }],
        times: vec![StageTime { stage: evil.into(), ..StageTime::default() }],
        ..ReportData::default()
    };
    let page = render(&data).unwrap();
    assert!(!page.contains("<script") && !page.contains("<img"));
    assert!(page.contains("&lt;script&gt;"));
}

#[test]
fn numbers_for_people() {
    assert_eq!(
        [duration(4.21), duration(75.0), duration(4310.0)],
        ["4.2 s", "1 min 15 s", "1 h 11 min"]
    );
    assert_eq!(
        [percent(Some(0.58654)), percent(None), percent(Some(f64::NAN))],
        ["58.65", "–", "–"]
    );
    assert_eq!(
        [count(Some(1_234_567.0)), count(Some(12.4)), count(None)],
        ["1\u{202f}234\u{202f}567", "12", "–"]
    );
}
