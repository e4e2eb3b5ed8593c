"""A tiny Whisper with random weights, through the real classes and files: it hears nothing, but says it in the right
form."""

from pathlib import Path

import torch
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers import WhisperProcessor, WhisperTokenizer

SPECIAL = (
    '<|startoftranscript|> <|en|> <|translate|> <|transcribe|> <|startoflm|> <|startofprev|> <|nospeech|> '
    '<|notimestamps|>'
).split()


def shape(tokens, marks):
    return WhisperConfig(
        vocab_size=tokens,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_target_positions=64,
        init_std=0.3,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **marks,
    )


def tiny_whisper(folder) -> Path:
    tok = WhisperTokenizer(
        vocab={t: i for i, t in enumerate([*sorted(ByteLevel.alphabet()), '<|endoftext|>'])}, merges=[]
    )
    tok.add_special_tokens({'additional_special_tokens': SPECIAL})
    tok.add_tokens([AddedToken(f'<|{i * 0.02:.2f}|>', special=False, normalized=False) for i in range(1501)])
    ids = {t: tok.convert_tokens_to_ids(t) for t in ['<|endoftext|>', *SPECIAL]}
    end = ids['<|endoftext|>']
    marks = dict(
        decoder_start_token_id=ids['<|startoftranscript|>'], eos_token_id=end, bos_token_id=end, pad_token_id=end
    )
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(shape(len(tok), marks))
    model.generation_config = GenerationConfig(
        **marks,
        max_length=40,
        max_initial_timestamp_index=50,
        is_multilingual=True,
        lang_to_id={'<|en|>': ids['<|en|>']},
        no_timestamps_token_id=ids['<|notimestamps|>'],
        task_to_id={'transcribe': ids['<|transcribe|>'], 'translate': ids['<|translate|>']},
        prev_sot_token_id=ids['<|startofprev|>'],
        alignment_heads=[[0, 0], [1, 1]],
        return_timestamps=False,
    )
    WhisperProcessor(WhisperFeatureExtractor(80), tok).save_pretrained(folder)
    model.save_pretrained(folder)
    return Path(folder)
