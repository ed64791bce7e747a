"""One vLLM engine: reads a request from stdin, prints answers as JSON, ends."""

from __future__ import annotations

import json
import sys


def main() -> None:
    from vllm import LLM, SamplingParams

    request = json.load(sys.stdin)
    options = {"enforce_eager": True, "max_model_len": 2048, "enable_prefix_caching": False, **request["options"]}
    if request["connector"]:
        options["kv_transfer_config"] = {
            "kv_connector": "KdnConnector",
            "kv_connector_module_path": "kdn.vllm",
            "kv_role": "kv_both",
            "kv_load_failure_policy": "recompute",
            "kv_connector_extra_config": request["connector"],
        }
    engine = LLM(request["model"], **options)
    answers = engine.generate(request["prompts"], SamplingParams(temperature=0, max_tokens=4), use_tqdm=False)
    output = [
        {
            "text": answer.outputs[0].text,
            "tokens": list(answer.outputs[0].token_ids),
            "prompt_tokens": len(answer.prompt_token_ids),
            "delivered": answer.num_cached_tokens,
        }
        for answer in answers
    ]
    del engine  # ends when what it saves is stored
    print("\n" + json.dumps(output))


if __name__ == "__main__":
    main()
