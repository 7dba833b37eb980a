"""Scripts that print the tables of the docs; each has `--help`.

| `python -m experiments.NAME` | table |
|---|---|
| `arrays` | docs/performance.md, pictures that a client has as arrays |
| `bulk` | docs/bulk.md, rate, memory and kills; `make bench-bulk` |
| `decoding` | docs/images.md, what decoding costs |
| `full_size` | docs/checkpoints.md, time and memory of a build |
| `fuzz_images` | none: it feeds damaged files to the preprocessor |
| `gpu` | docs/gpu.md, TensorRT beside PyTorch; part of `make test-gpu` |
| `image_corpora` | docs/images.md, public test pictures beside libvips |
| `image_limits` | docs/images.md, what the largest pictures take |
| `int8` | docs/performance.md, precision on a CPU |
| `label_count` | docs/vocabularies.md, what labels cost |
| `open_set` | docs/vocabularies.md, names that are not tags |
| `operators` | docs/performance.md, where the engine's time goes |
| `ray_data` | docs/bulk.md, Ray Data with a server and without one |
| `resizing` | docs/images.md, what the resizer gains |
| `random_checkpoint` | none: it writes a checkpoint of RAM's own size for docs/performance.md |

Like a subcommand of `ram-triton`, a script has `add_arguments` and `run`;
`ram_triton.cli.run_module` runs it and reports errors in a line.
"""
