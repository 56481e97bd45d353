"""The paper's ablation: what each part of a CondenseNet is worth at equal multiply-adds."""
