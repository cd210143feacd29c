"""The allowed operators: deterministic ones whose output sizes do not depend on values in a row."""

from __future__ import annotations

from typing import Final

OPSETS: Final = {"": (7, 26), "ai.onnx.ml": (1, 5), "com.microsoft": (1, 1)}
"""The versions of operator sets, by domain, from the least to the greatest."""
_STANDARD = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh BatchNormalization Cast CastLike Ceil Celu Clip Concat
    Constant ConstantOfShape Cos Cosh CumSum Div Dropout Einsum Elu Equal Erf Exp Expand Flatten Floor Gather
    GatherElements GatherND Gelu Gemm Greater GreaterOrEqual HardSigmoid HardSwish Identity IsInf IsNaN
    LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax MatMul Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare RegexFullMatch Relu Reshape Round Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus
    Softsign Split Sqrt Squeeze StringConcat StringNormalizer StringSplit Sub Sum Tan Tanh TfIdfVectorizer
    ThresholdedRelu TopK Transpose Unsqueeze Where Xor
"""
_ML = """
    ArrayFeatureExtractor Binarizer CastMap CategoryMapper DictVectorizer FeatureVectorizer Imputer LabelEncoder
    LinearClassifier LinearRegressor Normalizer OneHotEncoder SVMClassifier SVMRegressor Scaler TreeEnsemble
    TreeEnsembleClassifier TreeEnsembleRegressor ZipMap
"""
OPERATORS: Final = {
    "": frozenset(_STANDARD.split()),
    "ai.onnx.ml": frozenset(_ML.split()),
    # Contributed operators that are part of ONNX Runtime, and that scikit-learn converters use for text.
    "com.microsoft": frozenset({"CDist", "Tokenizer"}),
}
TREES: Final = frozenset({"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor"})
CLASSIFIERS: Final = frozenset({"LinearClassifier", "SVMClassifier", "TreeEnsembleClassifier", "ZipMap"})
HAND_ON: Final = frozenset(
    {
        "ArrayFeatureExtractor", "Cast", "Concat", "FeatureVectorizer", "Flatten", "Gather", "Identity", "Reshape",
        "Scaler", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze", "Sub", "Div", "Mul", "Add",
    }
)  # fmt: skip
"""Operators that pass missing values on."""
TAKE_MISSING: Final = frozenset({"Imputer", "IsNaN"})
"""Operators that accept missing values, and whose outputs have none."""
BY_ROW: Final = (
    frozenset(
        {
            "Binarizer", "Clip", "Exp", "Greater", "GreaterOrEqual", "Imputer", "IsNaN", "LabelEncoder", "Less",
            "LessOrEqual", "OneHotEncoder", "StringNormalizer", "TfIdfVectorizer", "Tokenizer", "Where", "ZipMap",
        }
    )
    | HAND_ON
    | TREES
)  # fmt: skip
"""Operators that compute each row independently of the others."""


def canonical_domain(domain: str) -> str:
    """The domain's canonical name: `ai.onnx` is an alias of the standard domain."""
    return "" if domain == "ai.onnx" else domain
