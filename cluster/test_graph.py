"""Opens a graph of predictions in rdflib, networkx and pandas, and checks that all tell the same.

usage: test_graph.py GRAPH
"""
import csv
import pathlib
import sys

import networkx
import pandas
import rdflib

folder = pathlib.Path(sys.argv[1])
failed = 0


def check(what, problems):
    global failed
    print(f"{what}: {', '.join(problems) or 'passed'}")
    failed += bool(problems)


nodes, edges, statements = (pandas.read_parquet(folder / f"{name}.parquet") for name in ["nodes", "edges", "statements"])
keys = set(zip(edges["head"], edges["relation"], edges["tail"]))
problems = ["no edge"] * int(edges.empty) + ["edges twice"] * (len(keys) != len(edges))
problems += ["ends that are no nodes"] * (not set(edges["head"]) | set(edges["tail"]) == set(nodes["id"]))
problems += ["statements of no edge"] * (set(zip(statements["head"], statements["relation"], statements["tail"])) != keys)
problems += ["sentences"] * int((statements["text"].str.len() == 0).any())
check(f"{len(nodes)} nodes and {len(edges)} edges in pandas", problems)

triples = rdflib.Graph().parse(folder / "graph.nt", format="nt")
stated = set(triples.subjects(rdflib.RDF.type, rdflib.RDF.Statement))
relation = "urn:docre:relation:"
plain = {triple for triple in triples if str(triple[1]).startswith(relation)}
parts = [rdflib.RDF.subject, rdflib.RDF.predicate, rdflib.RDF.object]
told = {tuple(triples.value(one, part) for part in parts) for one in stated}
problems = ["edges"] * (len(plain) != len(edges)) + ["statements"] * (len(stated) != len(statements))
problems += ["provenance"] * (told != plain)
check(f"{len(triples)} triples in rdflib", problems)

lists = "\x1f"
rows = {name: list(csv.DictReader(open(folder / f"neo4j-{name}.csv", newline=""))) for name in ["nodes", "relationships"]}
drawn = networkx.MultiDiGraph()
drawn.add_nodes_from(row["id:ID"] for row in rows["nodes"])
drawn.add_edges_from((row[":START_ID"], row[":END_ID"], row[":TYPE"]) for row in rows["relationships"])
problems = ["nodes"] * (set(drawn.nodes) != set(nodes["id"]))
problems += ["edges"] * ({(head, kind, tail) for head, tail, kind in drawn.edges(keys=True)} != keys)
names = {row["id:ID"]: row["names:string[]"].split(lists) for row in rows["nodes"]}
problems += ["names"] * (names != {row["id"]: list(row["names"]) for _, row in nodes.iterrows()})
check(f"{drawn.number_of_edges()} relationships in networkx", problems)
sys.exit(failed > 0)
