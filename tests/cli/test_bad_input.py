"""Files and texts that are wrong: each is told clearly, quickly and without taking memory for claimed sizes."""

import json
import os
import shutil
import struct
import unittest

from kvasir_cli import DEMO, CliTest, read_safetensors, write_safetensors

RUN = ["generate", "-p", "Once", "-n", "2", "-m"]


class Prompts(CliTest):
    def test_longer_than_the_context(self):
        self.fails("generate", "-p", "word " * 300, says=["256", "tokens"])
        self.fails("generate", "-p", "one two three four five six seven", "-c", "3", says=["3"])

    def test_invalid_utf8(self):
        file = self.write("p.txt", b"caf\xe9 au lait")
        self.fails("generate", "-f", file, says=[file, "invalid UTF-8 at byte 3 (0xE9)"])
        self.fails("generate", stdin=b"\xff", says=["standard input", "byte 0"])
        self.fails("generate", "-p", b"ok\xc3", says=["--prompt", "byte 2"])
        self.fails("tokenize", "-p", b"\xed\xa0\x80", says="invalid UTF-8")
        replaced = self.ok("tokenize", "-f", file, "--replace-invalid", "--json").json
        self.assertEqual(replaced, self.ok("tokenize", "-p", "caf\ufffd au lait", "--json").json)

    def test_files_that_cannot_be_read(self):
        self.fails("generate", "-f", self.path("none"), says=self.path("none"))
        self.fails("generate", "-f", self.folder, says=self.folder)
        self.fails("generate", "-p", "x", "-f", self.path("none"), says="one of them")


class Models(CliTest):
    def weights(self, model):
        return os.path.join(model, "model.safetensors")

    def test_paths(self):
        self.fails(*RUN, self.path("none"), says=[self.path("none")])
        self.fails(*RUN, "/dev/null", says="/dev/null")
        self.fails(*RUN, self.folder, says=self.folder)  # an empty folder
        self.fails("generate", "-p", "x", env={"KVASIR_DEMO_MODEL": self.path("none")}, says=self.path("none"))

    def test_files_in_a_wrong_place(self):
        self.fails(*RUN, os.path.join(DEMO, "config.json"), says=["config.json", "give the folder"])
        packed = self.path("demo.kvpack")
        self.assertIn("beside", self.ok("pack", "-m", DEMO, "-o", packed).err)
        self.fails(*RUN, packed, says=[packed, "belongs beside the model it was made from"])

    def test_pytorch_files_are_refused_naming_the_conversion(self):
        model = self.copy_demo()
        os.rename(self.weights(model), os.path.join(model, "pytorch_model.bin"))
        self.fails(*RUN, model, says=[".bin", "safetensors"])

    def test_empty_and_truncated_files(self):
        for name in ("model.safetensors", "config.json", "tokenizer.json"):
            for size in (0, 3, 500):
                with self.subTest(name=name, size=size):
                    model = self.copy_demo()
                    with open(os.path.join(model, name), "r+b") as file:
                        file.truncate(size)
                    self.fails(*RUN, model, says=name)
        model = self.copy_demo()
        with open(self.weights(model), "r+b") as file:
            file.truncate(os.path.getsize(self.weights(model)) - 1)
        self.fails(*RUN, model, says="model.safetensors")
        for content in (b"", b"GGUF", b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60)):
            file = self.write("m.gguf", content)
            self.fails(*RUN, file, says="m.gguf")

    def test_absurd_headers(self):
        model = self.copy_demo()
        for length in (0, 1, 1 << 20, 1 << 40, (1 << 63) - 1, (1 << 64) - 1):
            with self.subTest(length):
                with open(self.weights(model), "r+b") as file:
                    file.write(struct.pack("<Q", length))
                self.fails(*RUN, model, says="model.safetensors")

    def test_missing_tensors_are_all_listed(self):
        model = self.copy_demo()
        header, data = read_safetensors(self.weights(model))
        gone = ["model.layers.0.mlp.up_proj.weight", "model.layers.5.self_attn.k_proj.weight", "model.norm.weight"]
        renamed = {("gone." + k if k in gone else k): v for k, v in header.items()}
        write_safetensors(self.weights(model), renamed, data)
        self.fails(*RUN, model, says=gone)

    def test_unexpected_tensors_are_only_warned_of(self):
        model = self.copy_demo()
        header, data = read_safetensors(self.weights(model))
        header["model.extra.weight"] = {"dtype": "BF16", "shape": [4], "data_offsets": [len(data), len(data) + 8]}
        write_safetensors(self.weights(model), header, data + bytes(8))
        self.assertIn("model.extra.weight", self.ok(*RUN, model).err)

    def test_wrong_shapes_types_and_offsets(self):
        name = "model.layers.2.self_attn.o_proj.weight"

        def change(edit):
            model = self.copy_demo()
            header, data = read_safetensors(self.weights(model))
            edit(header[name], header)
            write_safetensors(self.weights(model), header, data)
            return model

        cases = {
            "shape": lambda t, h: t.update(shape=[96, 384]),
            "too large": lambda t, h: t.update(shape=[1 << 40, 1 << 40]),
            "negative": lambda t, h: t.update(shape=[-192, -192]),
            "unknown dtype": lambda t, h: t.update(dtype="F7"),
            "dtype": lambda t, h: t.update(dtype="F32"),
            "overlap": lambda t, h: t.update(data_offsets=h["model.norm.weight"]["data_offsets"]),
            "outside": lambda t, h: t.update(data_offsets=[x + (1 << 40) for x in t["data_offsets"]]),
            "reversed": lambda t, h: t.update(data_offsets=t["data_offsets"][::-1]),
            "no shape": lambda t, h: t.pop("shape"),
        }
        for case, edit in cases.items():
            with self.subTest(case):
                self.fails(*RUN, change(edit), says="model.safetensors")

    def test_integers_for_weights(self):
        model = self.copy_demo()
        header, data = read_safetensors(self.weights(model))
        header["model.norm.weight"]["dtype"] = "I16"
        write_safetensors(self.weights(model), header, data)
        self.fails(*RUN, model, says="model.norm.weight")

    def test_absurd_config_values(self):
        for config in ({"hidden_size": 1 << 40}, {"hidden_size": -1}, {"hidden_size": "192"}, {"hidden_size": 193},
                       {"num_hidden_layers": 1 << 30}, {"num_hidden_layers": 0}, {"num_attention_heads": 0},
                       {"num_attention_heads": 7}, {"num_key_value_heads": 4}, {"head_dim": 1 << 20},
                       {"vocab_size": 1 << 31}, {"vocab_size": 5000}, {"intermediate_size": 513},
                       {"rms_norm_eps": "tiny"}, {"rope_theta": -1}, {"hidden_act": "sorcery"},
                       {"model_type": "teapot"}, {"model_type": None}, {"hidden_size": None},
                       {"num_hidden_layers": 7}, {"rope_scaling": {"rope_type": "magic"}}):
            with self.subTest(config):
                run = self.fails(*RUN, self.copy_demo(**config))
                self.assertRegex(run.err, r"model\.safetensors|config\.json")

    def test_json_that_is_wrong(self):
        deep = "[" * 100_000
        for name in ("config.json", "tokenizer.json", "generation_config.json", "tokenizer_config.json"):
            for content in (deep.encode(), b'{"a": "\xff"}', b"[]", b'{"a": 1, "a": 2}', b"{} {}"):
                with self.subTest(name=name, content=content[:20]):
                    model = self.copy_demo()
                    with open(os.path.join(model, name), "wb") as file:
                        file.write(content)
                    self.fails(*RUN, model, says=name)

    def test_shards(self):
        model = self.copy_demo()
        header, _ = read_safetensors(self.weights(model))
        index = os.path.join(model, "model.safetensors.index.json")
        outside = shutil.copy(self.weights(model), self.path("outside.safetensors"))
        os.rename(self.weights(model), os.path.join(model, "part.safetensors"))
        for target, says in [("../outside.safetensors", "outside"), (outside, "outside"), ("gone.safetensors", "gone")]:
            with self.subTest(target):
                with open(index, "w") as file:
                    json.dump({"weight_map": {name: target for name in header}}, file)
                self.fails(*RUN, model, says=says)
        with open(index, "w") as file:
            json.dump({"weight_map": {name: "part.safetensors" for name in header}}, file)
        self.ok(*RUN, model)

    def test_nan_weights_end_with_an_error(self):
        model = self.copy_demo()
        header, data = read_safetensors(self.weights(model))
        begin, _ = header["model.layers.1.mlp.down_proj.weight"]["data_offsets"]
        data[begin:begin + 2] = struct.pack("<H", 0x7FC0)
        write_safetensors(self.weights(model), header, data)
        self.fails(*RUN, model, says="NaN")
        run = self.fails("inspect", model, "--check-tensors", "--tensors", says=[
            "model.layers.1.mlp.down_proj.weight", "1 NaN"])
        self.assertIn(b"model.layers.1.mlp.down_proj.weight", run.out)

    def test_models_without_a_tokenizer_still_give_logits(self):
        model = self.copy_demo()
        os.remove(os.path.join(model, "tokenizer.json"))
        os.remove(os.path.join(model, "tokenizer_config.json"))
        self.fails(*RUN, model, says="tokenizer")
        self.ok("logits", "-m", model, "--tokens", "1,2", "--json")

    def test_a_tokenizer_for_a_larger_model(self):
        rows = 1000
        model = self.copy_demo(vocab_size=rows)
        header, data = read_safetensors(self.weights(model))
        name = "model.embed_tokens.weight"
        begin, end = header[name]["data_offsets"]
        keep = (end - begin) // header[name]["shape"][0] * rows
        header[name].update(shape=[rows, header[name]["shape"][1]], data_offsets=[begin, begin + keep])
        for tensor in header.values():
            if tensor["data_offsets"][0] >= end:
                tensor["data_offsets"] = [at - (end - begin - keep) for at in tensor["data_offsets"]]
        write_safetensors(self.weights(model), header, data[:begin + keep] + data[end:])
        told = self.ok("generate", "-m", model, "-p", "a", "-n", "1").err
        self.assertIn("the tokenizer has 4096 tokens, the model only 1000", told)
        self.fails(*RUN, model, says=["token id", "the model's vocabulary of 1000; its tokenizer is for a larger one"])

    def test_a_division_is_given_for_gguf_files_only(self):
        for args in (["generate", "-p", "x"], ["tokenize", "-p", "x"], ["tokenize", "-p", "x", "-m", DEMO + "/tokenizer.json"]):
            self.fails(*args, "--pre", "qwen2", says="--pre is for GGUF files")

    def test_malformed_vocabularies(self):
        path = os.path.join(DEMO, "tokenizer.json")
        with open(path) as file:
            good = json.load(file)

        def broken(edit):
            value = json.loads(json.dumps(good))
            edit(value)
            return value

        cases = {
            "merge of unknown pieces": lambda t: t["model"]["merges"].append(["nosuchpiece", "neither"]),
            "merge of one": lambda t: t["model"]["merges"].append("alone"),
            "merge of numbers": lambda t: t["model"]["merges"].append([1, 2]),
            "no vocab": lambda t: t["model"].pop("vocab"),
            "negative id": lambda t: t["model"]["vocab"].update(zzzz=-4),
            "huge id": lambda t: t["model"]["vocab"].update(zzzz=1 << 40),
            "unknown model": lambda t: t["model"].update(type="Guess"),
        }
        for case, edit in cases.items():
            with self.subTest(case):
                file = self.write("tokenizer.json", json.dumps(broken(edit)))
                self.fails("tokenize", "-m", file, "-p", "x", says="tokenizer.json")


if __name__ == "__main__":
    unittest.main()
