# The two commands of a newcomer: `make run` and `make test`. Everything else is a part of them.
BINARY := target/release/docre-pretrain
RANKS ?= 2
# Checked and tested with everything that can be built in; the release build leaves object stores out.
FEATURES := --features cloud
# Open MPI refuses to start as root or with more ranks than cores unless told otherwise.
MPIENV := OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
# Which encoder `make encoder` brings; not taken from the environment, where others use this name.
NAME = minilm
# Pieces of a document in `make bench-hf`.
LENGTH = 512

.PHONY: setup encoder build run test test-nightly test-interop wheel test-python test-wheel bench-hf test-gpu-check test-slurm check clean
setup:            ## install what the machine lacks (apt packages, libtorch)
	@cluster/setup.sh
encoder:          ## download a real encoder and print its folder (NAME=minilm or mpnet-base)
	@cluster/encoder.sh $(NAME)
build: setup      ## build the release binary
	cargo build --release --locked
run: build        ## the whole pipeline on the generated corpus
	$(MPIENV) mpirun -n $(RANKS) $(BINARY) run jobs/quickstart.toml
test: setup       ## all tests
	$(MPIENV) cargo test --locked $(FEATURES)
test-nightly: setup ## all tests, with every kill, damage, resume and seed of docs/operation.md (hours)
	$(MPIENV) DOCRE_WORLD_DOCUMENTS=100000 DOCRE_KILLS=500 DOCRE_DAMAGE=all DOCRE_RESUME_EVERY=1 DOCRE_FABRIC_SEEDS=20000 DOCRE_SOAK_STEPS=20000 DOCRE_ALL_TABLES=1 cargo test --locked $(FEATURES)
	DOCRE_STREAM_DOCUMENTS=1000000 cargo test --locked $(FEATURES) --lib more_documents_than_fit
test-interop: build ## checkpoints open in transformers, shards in pyarrow; launch files are valid
	cluster/test-interop.sh $(BINARY)
wheel: setup      ## the wheel of the Python package, into target/wheels
	cluster/wheel.sh
test-python: build ## the Python package, around the release binary
	cluster/test-wheel.sh $(BINARY)
test-wheel: setup ## the same around the binary of the wheel, without MPI
	cluster/test-wheel.sh
bench-hf: build   ## tokens a second of a BERT beside transformers on the CPU (LENGTH=512)
	$$(cluster/interop-env.sh) cluster/bench_hf.py $(BINARY) $(LENGTH)
test-gpu-check: build ## the check of a machine with a GPU, shortened on the CPU
	DEVICE=cpu SHORT=1 OUT=target/gpu-check cluster/gpu-check.sh
test-slurm: build ## the job templates through a real Slurm on this machine (root)
	cluster/slurm-test/run.sh $(BINARY)
check: setup      ## what CI checks
	cargo fmt --check
	cluster/format-cpp.sh
	cargo clippy --locked $(FEATURES) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked $(FEATURES) --no-deps --document-private-items
	cluster/deny.sh
	$(MAKE) test
clean:            ## remove what was built
	cargo clean
